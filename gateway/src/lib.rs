//! carebed-gateway
