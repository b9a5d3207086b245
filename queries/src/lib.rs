//! carebed-queries
