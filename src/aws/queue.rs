//! The queue of notices, thin: SQS (Amazon SQS API Reference).

use super::answer::CallError;
use super::counted;
use crate::telemetry::metrics::{AwsOperation, AwsResult, Metrics};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a read waits for messages, the longest that SQS allows (Developer Guide, "Long polling").
const WAIT_SECONDS: i32 = 20;
/// How many messages a read gives at most (API Reference, ReceiveMessage).
const BATCH: i32 = 10;
/// A read takes no longer.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(25);
/// A message that was read is hidden from others for so long. After a crash it comes again then.
pub const HIDDEN_FOR: Duration = Duration::from_secs(30);

/// A message as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// What it says.
    pub body: String,
    /// By which it is hidden and deleted.
    pub receipt: String,
    /// How often it was received, this time included.
    pub receives: u32,
    /// When it was sent.
    pub sent: Option<Timestamp>,
    /// When it was received first.
    pub first_received: Option<Timestamp>,
}

/// The queue.
#[derive(Clone)]
pub struct SqsQueue {
    client: Client,
    url: Arc<str>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for SqsQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsQueue").field("url", &self.url).finish_non_exhaustive()
    }
}

impl SqsQueue {
    /// The queue of that URL, read without the SDK's own retries. A call takes `timeout` at most; a read
    /// takes longer, for it waits for messages.
    #[must_use]
    pub fn new(config: &SdkConfig, url: &str, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        let settings = aws_sdk_sqs::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build())
            .build();
        Self { client: Client::from_conf(settings), url: url.into(), metrics }
    }

    /// The next messages, ten at most; none if none comes within 20 s.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn receive(&self) -> Result<Vec<Received>, CallError> {
        let patience = TimeoutConfig::builder().operation_timeout(RECEIVE_TIMEOUT).build();
        let call = self
            .client
            .receive_message()
            .queue_url(&*self.url)
            .max_number_of_messages(BATCH)
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(i32::try_from(HIDDEN_FOR.as_secs()).unwrap_or(i32::MAX))
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .customize()
            .config_override(aws_sdk_sqs::config::Builder::default().timeout_config(patience))
            .send();
        let answer = counted(&self.metrics, AwsOperation::ReceiveMessage, call, |_| AwsResult::Ok).await?;
        Ok(answer.messages().iter().filter_map(received).collect())
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn delete(&self, message: &Received) -> Result<(), CallError> {
        let call = self
            .client
            .delete_message()
            .set_queue_url(Some(self.url.to_string()))
            .receipt_handle(&message.receipt)
            .send();
        counted(&self.metrics, AwsOperation::DeleteMessage, call, |_| AwsResult::Ok).await.map(drop)
    }

    /// Hides a message for so long from now on; zero shows it at once.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn hide(&self, message: &Received, time: Duration) -> Result<(), CallError> {
        let call = self
            .client
            .change_message_visibility()
            .queue_url(&*self.url)
            .receipt_handle(&message.receipt)
            .visibility_timeout(i32::try_from(time.as_secs()).unwrap_or(i32::MAX))
            .send();
        counted(&self.metrics, AwsOperation::ChangeMessageVisibility, call, |_| AwsResult::Ok).await.map(drop)
    }

    /// Whether the queue has a dead-letter queue.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn has_dead_letters(&self) -> Result<bool, CallError> {
        let call = self
            .client
            .get_queue_attributes()
            .queue_url(&*self.url)
            .attribute_names(QueueAttributeName::RedrivePolicy)
            .send();
        let answer =
            counted(&self.metrics, AwsOperation::GetQueueAttributes, call, |_| AwsResult::Ok).await?;
        let policy = answer.attributes().and_then(|held| held.get(&QueueAttributeName::RedrivePolicy));
        Ok(policy.is_some_and(|policy| !policy.is_empty()))
    }
}

fn received(message: &Message) -> Option<Received> {
    let said = |name| message.attributes().and_then(|held| held.get(&name));
    let time = |name| Timestamp::from_millisecond(said(name)?.parse().ok()?).ok();
    let receives = said(MessageSystemAttributeName::ApproximateReceiveCount);
    Some(Received {
        body: message.body().unwrap_or_default().to_owned(),
        receipt: message.receipt_handle()?.to_owned(),
        receives: receives.and_then(|count| count.parse().ok()).unwrap_or(1),
        sent: time(MessageSystemAttributeName::SentTimestamp),
        first_received: time(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp),
    })
}
