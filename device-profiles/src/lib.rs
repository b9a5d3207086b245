//! carebed-device-profiles
