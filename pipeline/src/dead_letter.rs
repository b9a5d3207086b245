//! A message kept because it could not be used, with the reason.

use bytes::Bytes;
use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, GatewayId};
use carebed_contract::labels::Labels;
use carebed_contract::time::Timestamp;

/// A row of the table `dead_letters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The gateway on whose topic it came.
    pub gateway: GatewayId,
    /// The area on whose topic it came.
    pub area: Area,
    /// The topic.
    pub topic: String,
    /// Its labels, where they could be read. Such a letter was consumed: its lane went on.
    pub labels: Option<Labels>,
    /// What it said it was.
    pub content_type: String,
    /// The payload as it came.
    pub payload: Bytes,
    /// Why it could not be used.
    pub reason: String,
    /// When the centre took it.
    pub received_time: Timestamp,
}

impl DeadLetter {
    /// Names the letter for ever. One with labels is named by its batch, one without by what came on which topic: the
    /// same unusable message repeated a thousand times is one row.
    #[must_use]
    pub fn key(&self) -> Digest {
        match &self.labels {
            Some(l) => {
                Digest::of_bytes(format!("letter 1 {} {} {} {}", self.gateway, l.epoch, l.lane, l.seq).as_bytes())
            }
            None => Self::key_unlabelled(&self.topic, &self.content_type, &self.payload),
        }
    }

    /// The key of a message without readable labels.
    #[must_use]
    pub fn key_unlabelled(topic: &str, content_type: &str, payload: &[u8]) -> Digest {
        let payload = Digest::of_bytes(payload);
        Digest::of_bytes(format!("letter 1 {topic} {content_type} {payload}").as_bytes())
    }
}
