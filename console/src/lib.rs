//! carebed-console
