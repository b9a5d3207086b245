//! carebed-alerts
