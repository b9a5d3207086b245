//! One message from a gateway, read as far as that needs nothing but the message: work for any task.

use bytes::Bytes;
use carebed_contract::labels::{Labels, Lane};
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};

use crate::dead_letter::DeadLetter;
use crate::memory::{ROW_BYTES, Share};
use crate::rows::Readings;

/// A message and what it says.
#[derive(Debug)]
pub struct Message {
    pub(crate) topic: Topic,
    pub(crate) content_type: String,
    pub(crate) payload: Bytes,
    /// Of a batch: its labels, or why they cannot be followed.
    pub(crate) labels: Result<Labels, String>,
    /// Of a batch: its pack, or why it is none.
    pub(crate) pack: Result<Readings, String>,
    /// The memory it was given.
    pub(crate) share: Option<Share>,
}

impl Message {
    /// Reads a message. Nothing in it makes this fail.
    #[must_use]
    pub fn read(topic: Topic, labels: Option<&[u8]>, content_type: String, payload: Bytes) -> Self {
        let (labels, pack) = match topic.channel {
            Channel::Batch(lane) => {
                (readable(labels, lane), Readings::decode(&content_type, &payload).map_err(|error| with_causes(&error)))
            }
            _ => (Err("no batch".to_owned()), Err("no batch".to_owned())),
        };
        Self { topic, content_type, payload, labels, pack, share: None }
    }

    /// What it needs until it is committed, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + self.pack.as_ref().map_or(0, Readings::n_rows) * ROW_BYTES
    }

    /// As a letter that nobody could use.
    pub(crate) fn letter(&self, labels: Option<Labels>, reason: String, received: Timestamp) -> DeadLetter {
        DeadLetter {
            gateway: self.topic.gateway.clone(),
            area: self.topic.area.clone(),
            topic: self.topic.to_string(),
            labels,
            content_type: self.content_type.clone(),
            payload: self.payload.clone(),
            reason,
            received_time: received,
        }
    }
}

/// Labels that can be followed, or why not.
fn readable(labels: Option<&[u8]>, lane: Lane) -> Result<Labels, String> {
    let labels = Labels::decode(labels.ok_or("no labels")?).map_err(|error| with_causes(&error))?;
    if labels.lane != lane {
        return Err(format!("labels of lane {} on the topic of lane {lane}", labels.lane));
    }
    // The table counts batches in 63 bits.
    if i64::try_from(labels.seq).is_err() {
        return Err(format!("batch number {} is too large", labels.seq));
    }
    Ok(labels)
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
