//! The terminal between the lines of the prompt.

use rustix::termios::{InputModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Keeps Enter what it is while no line is read: as a newline, all that is typed behind it would be taken for the same line
/// and be lost. As it was before when it ends.
pub(super) struct TypedAhead {
    before: Option<Termios>,
}

impl TypedAhead {
    pub(super) fn keep() -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.input_modes.remove(InputModes::ICRNL);
            let _as_it_was = tcsetattr(std::io::stdin(), OptionalActions::Now, &modes);
        }
        Self { before }
    }
}

impl Drop for TypedAhead {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _as_it_is = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
