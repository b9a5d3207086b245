//! Why bytes are not taken. Bad input of a device is data: it is counted and told, and never becomes a value.

/// Why bytes are not what was asked for or promised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// The device says why it does not answer.
    #[error("the device answered with exception {0}")]
    Exception(u8),
    /// An answer to something else.
    #[error("function {asked} was asked for, {answered} was answered")]
    Function {
        /// Code of the request.
        asked: u8,
        /// Code of the answer.
        answered: u8,
    },
    /// Not exactly the asked count.
    #[error("{expected} bytes were asked for, {found} came")]
    Length {
        /// How many bytes answer the request.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// A write was not confirmed as it was asked, or a question came back as it was sent.
    #[error("the device did not confirm the write as asked, or the line echoes")]
    Echo,
    /// Shorter than any frame, or cut off.
    #[error("{0} bytes are no frame")]
    Short(usize),
    /// A length that no frame of this device has.
    #[error("{0} bytes are longer than any frame")]
    Oversize(usize),
    /// A byte that every frame has at this place is another.
    #[error("byte {0} is not as every frame has it")]
    Fixed(usize),
    /// The frame was damaged on the way.
    #[error("the frame's checksum does not match")]
    Checksum,
    /// From another Modbus device.
    #[error("unit {asked} was asked, {answered} answered")]
    Unit {
        /// The unit asked.
        asked: u8,
        /// The unit that answered.
        answered: u8,
    },
    /// From another device on the line.
    #[error("the frame is from device {0}")]
    Address(String),
    /// Bytes between frames.
    #[error("{0} bytes of noise")]
    Noise(usize),
    /// A whole frame that the profile does not know.
    #[error("the profile knows no message with key {0}")]
    Unknown(String),
    /// A payload that is no text, no JSON, or too long.
    #[error("the payload cannot be read: {0}")]
    Payload(&'static str),
}

impl Reject {
    /// Its word in captures and counters.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Exception(_) => "exception",
            Self::Function { .. } => "function",
            Self::Length { .. } | Self::Short(_) | Self::Oversize(_) => "length",
            Self::Echo => "echo",
            Self::Fixed(_) => "fixed",
            Self::Checksum => "checksum",
            Self::Unit { .. } => "unit",
            Self::Address(_) => "address",
            Self::Noise(_) => "noise",
            Self::Unknown(_) => "unknown",
            Self::Payload(_) => "payload",
        }
    }
}
