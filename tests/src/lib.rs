//! Whole-system scenarios, the fault proxy, and the workspace's own rules. Nothing imports this crate.

pub mod clock;
pub mod faults;
pub mod lake;
pub mod layers;
pub mod load;
pub mod model;
pub mod process;
pub mod proxy;
pub mod real;
pub mod sql_server;
pub mod world;
