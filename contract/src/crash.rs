//! Named points at which a test makes a process die, to show that nothing depends on living through them.
//!
//! A process started with `CAREBED_CRASH_AT=name` aborts the first time it reaches that point, as after a power cut:
//! no destructor runs, no buffer is written. Release builds hold no such points.

/// Aborts the process here when `CAREBED_CRASH_AT` names this point (never in a release build).
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static AT: OnceLock<Option<String>> = OnceLock::new();
        if AT.get_or_init(|| std::env::var("CAREBED_CRASH_AT").ok()).as_deref() == Some(name) {
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
