//! Writes SpotActions.

use crate::crd::{SpotAction, SpotActionSpec};
use crate::kube::problem::RequestProblem;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::timeout;

/// How long the API server may take to store a SpotAction.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Writes SpotActions; clones share the client.
#[derive(Clone)]
pub struct SpotActions {
    api: Api<SpotAction>,
}

/// A SpotAction that is stored.
#[derive(Clone, Debug)]
pub struct Written {
    /// As it is stored.
    pub spot_action: SpotAction,
    /// Whether it is new; else one with this name and the same content was there.
    pub fresh: bool,
}

/// Why a SpotAction is not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A SpotAction of that name asks for something else.
    #[error("a SpotAction named {0} requests something else")]
    Other(String),
    /// The API server does not take its content.
    #[error("{0}")]
    Invalid(String),
    /// The API server did not answer, or refused us.
    #[error("the Kubernetes API did not store the SpotAction")]
    Unavailable,
}

impl SpotActions {
    /// Writes by this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// Stores a SpotAction under a name. One that is there already with the same content counts as stored:
    /// who derives the name from what identifies a request can repeat the request.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is stored then, or it is not known whether it was: the same call can be
    /// made again.
    pub async fn write(&self, name: &str, spec: SpotActionSpec) -> Result<Written, WriteError> {
        let spot_action = SpotAction::new(name, spec);
        let parameters = PostParams::default();
        let stored = timeout(WRITE_LIMIT, async {
            match self.api.create(&parameters, &spot_action).await {
                Ok(spot_action) => Ok(Written { spot_action, fresh: true }),
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    self.api.get(name).await.map(|spot_action| Written { spot_action, fresh: false })
                }
                Err(error) => Err(error),
            }
        });
        match stored.await {
            Ok(Ok(written)) if same(&written.spot_action.spec, &spot_action.spec) => Ok(written),
            Ok(Ok(_)) => Err(WriteError::Other(name.to_owned())),
            Ok(Err(kube::Error::Api(status))) if status.is_invalid() => {
                Err(WriteError::Invalid(status.message))
            }
            Ok(Err(error)) => {
                tracing::warn!(name, error = %RequestProblem(&error), "a SpotAction could not be stored");
                Err(WriteError::Unavailable)
            }
            Err(_) => {
                tracing::warn!(
                    spot_action = name,
                    "the Kubernetes API does not answer whether a SpotAction is stored"
                );
                Err(WriteError::Unavailable)
            }
        }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<SpotAction>, WriteError> {
        match timeout(WRITE_LIMIT, self.api.get_opt(name)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) | Err(_) => Err(WriteError::Unavailable),
        }
    }
}

/// Whether both ask for the same; the trace is that of the request.
fn same(one: &SpotActionSpec, other: &SpotActionSpec) -> bool {
    let without_trace = |spec: &SpotActionSpec| SpotActionSpec { traceparent: None, ..spec.clone() };
    without_trace(one) == without_trace(other)
}
