//! carebed-simulator
