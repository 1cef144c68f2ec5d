//! The instance metadata service, thin: a path becomes its text, nothing, or a typed problem.
//!
//! The SDK's client speaks IMDSv2 only, caches its token, and finds the endpoint by itself
//! (`AWS_EC2_METADATA_SERVICE_ENDPOINT`, else 169.254.169.254).

use crate::causes::with_causes;
use aws_config::imds::client::error::{ImdsError, TokenError};
use aws_config::imds::client::{Builder, Client};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use spot_guard_core::imds::{ImdsCategory, ImdsProblem};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// To connect, and to wait for the answer. IMDS is on the same host.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// For one answer, the session token included.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads IMDS. Makes no attempt of its own to try again: that is for the caller's schedule.
#[derive(Clone, Debug)]
pub struct Imds {
    builder: Builder,
    client: Arc<Mutex<Client>>,
}

impl Imds {
    /// A reader whose clients are built by `builder`, with other timeouts and no retries.
    #[must_use]
    pub fn new(builder: Builder) -> Self {
        let builder = builder
            .max_attempts(1)
            .connect_timeout(CALL_TIMEOUT)
            .read_timeout(CALL_TIMEOUT)
            .operation_attempt_timeout(READ_TIMEOUT)
            .operation_timeout(READ_TIMEOUT);
        let client = Arc::new(Mutex::new(builder.clone().build()));
        Self { builder, client }
    }

    /// The answer to a question; `None` if there is none (404, once IMDS has given a token).
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn read(&self, question: ImdsCategory) -> Result<Option<String>, ImdsProblem> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let problem = match client.get(question.path()).await {
            Ok(text) => return Ok(Some(text.into())),
            Err(error) => match problem_of(&error) {
                ImdsProblem::UnexpectedStatus(404) => return Ok(None),
                problem => problem,
            },
        };
        if problem == ImdsProblem::Unauthorized {
            // The SDK keeps a token until it expires by its own clock, even one that IMDS refuses, as after
            // hibernation. A new client begins with a new token.
            let fresh = self.builder.clone().build();
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Err(problem)
    }
}

fn problem_of(error: &ImdsError) -> ImdsProblem {
    match error {
        ImdsError::ErrorResponse(context) => ImdsProblem::of_status(context.response().status().as_u16()),
        ImdsError::FailedToLoadToken(_) => match token_response(error) {
            // Also 200 without the headers of a token.
            Some(response) => ImdsProblem::of_token_status(response.status().as_u16()),
            None => ImdsProblem::NoAnswer(with_causes(error)),
        },
        // The SDK has no type of its own for it.
        ImdsError::Unexpected(_)
            if error.source().is_some_and(|source| source.to_string().contains("UTF-8")) =>
        {
            ImdsProblem::Malformed { reason: "not UTF-8".to_owned() }
        }
        _ => ImdsProblem::NoAnswer(with_causes(error)),
    }
}

/// What IMDS answered to the token request, if it did.
fn token_response(error: &ImdsError) -> Option<&HttpResponse> {
    error.source()?.downcast_ref::<SdkError<TokenError, HttpResponse>>()?.raw_response()
}
