//! carebed
