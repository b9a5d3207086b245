//! carebed-tests
