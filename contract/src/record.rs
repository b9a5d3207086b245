//! One observation as it travels from a home.

use std::time::Duration;

use crate::id::{BedId, DeviceId, HomeId, IdError};
use crate::quality::Quality;
use crate::quantity::Quantity;
use crate::time::{ClockQuality, Timestamp};
use crate::value::Value;

/// What a record is about. Its text form, `{home}/{bed}/{device}/{quantity}` with `-` for no bed, is the SenML name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// The home.
    pub home: HomeId,
    /// The bed, or none for what belongs to the whole home.
    pub bed: Option<BedId>,
    /// The device.
    pub device: DeviceId,
    /// What was observed.
    pub quantity: Quantity,
}

/// Why a SenML name is not a series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// Not four parts.
    #[error("name {0:?} is not home/bed/device/quantity")]
    Parts(String),
    /// A part is not an id.
    #[error("name {name:?} holds a bad id")]
    Id {
        /// The whole name.
        name: String,
        /// What is wrong with the part.
        #[source]
        source: IdError,
    },
    /// The last part is not a quantity.
    #[error("name {0:?} does not end in a quantity")]
    Quantity(String),
}

impl Series {
    /// Reads the SenML name.
    ///
    /// ```
    /// use carebed_contract::record::Series;
    /// let series = Series::parse("h1/b1/mat-1/bed_occupancy")?;
    /// assert_eq!(series.to_string(), "h1/b1/mat-1/bed_occupancy");
    /// assert_eq!(Series::parse("h1/-/door-1/door_open")?.bed, None);
    /// # Ok::<(), carebed_contract::record::SeriesError>(())
    /// ```
    pub fn parse(name: &str) -> Result<Self, SeriesError> {
        let mut parts = name.split('/');
        let (Some(home), Some(bed), Some(device), Some(quantity), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SeriesError::Parts(name.to_owned()));
        };
        let id = |source| SeriesError::Id { name: name.to_owned(), source };
        Ok(Self {
            home: HomeId::new(home).map_err(id)?,
            bed: if bed == "-" { None } else { Some(BedId::new(bed).map_err(id)?) },
            device: DeviceId::new(device).map_err(id)?,
            quantity: Quantity::new(quantity).ok_or_else(|| SeriesError::Quantity(name.to_owned()))?,
        })
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bed = self.bed.as_ref().map_or("-", BedId::as_str);
        write!(f, "{}/{bed}/{}/{}", self.home, self.device, self.quantity)
    }
}

/// When something was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordTime {
    /// At a known time.
    At(Timestamp),
    /// So long before the centre receives it: all that a gateway without a clock, or a person publishing by hand, can
    /// say. SenML's relative time.
    BeforeReceive(Duration),
}

/// One observation as it travels.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is about.
    pub series: Series,
    /// When it was so at the bed.
    pub time: RecordTime,
    /// What was observed.
    pub value: Value,
    /// The SenML unit, when the payload names one.
    pub unit: Option<String>,
    /// How far to trust it.
    pub quality: Quality,
    /// How far to trust its time.
    pub clock: ClockQuality,
    /// When the gateway took it, where that is not the event time (a device with its own log).
    pub gateway_time: Option<Timestamp>,
    /// The gateway's monotonic time at which it took it; carried while the clock is not synchronised.
    pub monotonic: Option<Duration>,
}
