//! Topics are built and read here and nowhere else.

use std::fmt;

use crate::id::{Area, GatewayId};
use crate::labels::Lane;

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Batches of one lane, from the home.
    Batch(Lane),
    /// State of the gateway, from the home; retained, and its last will.
    Status,
    /// What is where in the home, from the home; retained.
    Inventory,
    /// Receipts, to the home.
    Receipt,
    /// Commands, to the home.
    Command,
    /// What became of a command, from the home.
    Result,
}

impl Channel {
    const ALL: [Self; 7] = [
        Self::Batch(Lane::Urgent),
        Self::Batch(Lane::Routine),
        Self::Status,
        Self::Inventory,
        Self::Receipt,
        Self::Command,
        Self::Result,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Batch(lane) => lane.as_str(),
            Self::Status => "status",
            Self::Inventory => "inventory",
            Self::Receipt => "receipt",
            Self::Command => "command",
            Self::Result => "result",
        }
    }
}

/// `carebed/v1/{area}/{gateway}/{channel}`
///
/// ```
/// use carebed_contract::topic::{Channel, Topic};
/// let topic = Topic::parse("carebed/v1/360702/gw-1/urgent").unwrap();
/// assert_eq!(topic.gateway.as_str(), "gw-1");
/// assert_eq!(topic.to_string(), "carebed/v1/360702/gw-1/urgent");
/// assert!(Topic::parse("carebed/v2/360702/gw-1/urgent").is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Where the gateway was enrolled.
    pub area: Area,
    /// The gateway.
    pub gateway: GatewayId,
    /// What it carries.
    pub channel: Channel,
}

impl Topic {
    /// Puts a topic together.
    #[must_use]
    pub fn new(area: Area, gateway: GatewayId, channel: Channel) -> Self {
        Self { area, gateway, channel }
    }

    /// Reads a topic; none when it is not one of this contract.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("carebed/v1/")?.split('/');
        let (area, gateway, channel) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let channel = Channel::ALL.into_iter().find(|c| c.as_str() == channel)?;
        Some(Self { area: Area::new(area).ok()?, gateway: GatewayId::new(gateway).ok()?, channel })
    }

    /// The filter for one channel of all gateways, or of one area's.
    #[must_use]
    pub fn filter(area: Option<&Area>, channel: Channel) -> String {
        format!("carebed/v1/{}/+/{}", area.map_or("+", Area::as_str), channel.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "carebed/v1/{}/{}/{}", self.area, self.gateway, self.channel.as_str())
    }
}
