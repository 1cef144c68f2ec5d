//! Answers that are cut short are no answers.
//!
//! The SDK's reader takes what there is of a document: of a list that is cut, the first members; of a launch,
//! none of its instances. So the end of the document is looked for before anything is believed.

use aws_sdk_autoscaling::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_autoscaling::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_autoscaling::error::BoxError;

/// How every document of the Query API ends.
const END: &[u8] = b"Response>";

/// Refuses answers of success without their end.
#[derive(Debug)]
pub(super) struct IntactAnswers;

impl Intercept for IntactAnswers {
    fn name(&self) -> &'static str {
        "IntactAnswers"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        if response.status().is_success() && !body.trim_ascii_end().ends_with(END) {
            return Err(
                format!("the answer of {} bytes is cut short, or is not from the API", body.len()).into()
            );
        }
        Ok(())
    }
}
