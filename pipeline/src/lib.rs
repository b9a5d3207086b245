//! carebed-pipeline
