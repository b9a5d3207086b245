//! Homes without people in them: residents, rooms, and devices that speak the real protocols on real sockets.
//!
//! The way of the data: a [`resident::Resident`] with [`habits::Habits`] lives days and nights, which gives physical
//! [`fact::Change`]s; a [`wiring::Wiring`] says which of them is a level on which input of a digital input board; a
//! [`board::Board`] answers Modbus requests about those levels; a [`home::SimulatedHome`] plays all of it against a
//! clock on a TCP port, and keeps a [`ledger::Ledger`] of what it showed and what was read, so that a test can compare
//! it with the table.
//!
//! Beside the board there are a [`bus`] of Modbus RTU stations with the manners of real ones, a bed [`radar`] that speaks by
//! itself, the [`meter`]s of Chinese homes, and [`zigbee`] devices behind a bridge.
//!
//! The crate knows nothing of gateways or of the centre: whoever connects is a Modbus client. The board's protocol is
//! written here a second time, not taken from a library, so that a gateway is not tested against its own codec.

pub mod chance;
pub mod fact;
pub mod habits;
pub mod nights;
pub mod resident;

pub mod board;
pub mod ledger;
pub mod wiring;

pub mod bus;
pub mod meter;
pub mod radar;
pub mod surroundings;
pub mod zigbee;

pub mod home;
mod wire;
