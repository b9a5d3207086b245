//! The delivery protocol between home and centre, explored exhaustively.
//!
//! [`explore`] walks every state that a small world can reach, breadth first, so that what it finds is the shortest way
//! to a broken promise. [`delivery`] is that world: spools that lose power, a network that loses, repeats and reorders,
//! and a centre that judges with the product's own [`carebed_pipeline::accept::Accept`].
//!
//! Why an own explorer and not stateright: its `eventually` passes over a path that ends in a circle, which is what a
//! lane that sticks looks like. Here every state names the step that is taken when nothing more goes wrong, and those steps
//! are followed from every state: a circle, or a rest with something undelivered, is a violation. It also spares the test
//! binary an HTTP server and its thread pools.

pub mod delivery;
pub mod explore;
