//! `check`: everything that is wrong with the files.

use super::{Exit, Files, config_file, home_file, print, tell};

pub(super) fn check(files: &Files) -> anyhow::Result<Exit> {
    // Both files are read, so that one run tells the mistakes of both.
    let (config, home) = (config_file(&files.config), home_file(&files.home));
    if let (Err(error), Err(_)) = (&config, &home) {
        tell(error);
    }
    let (config, home) = match (config, home) {
        (Ok(config), Ok(home)) => (config, home),
        (_, Err(error)) | (Err(error), _) => return Err(error),
    };
    let (n_inputs, n_outputs) = home
        .boards
        .iter()
        .fold((0, 0), |(inputs, outputs), board| (inputs + board.inputs.len(), outputs + board.outputs.len()));
    print(&format!(
        "{}: broker {}:{}, spool {}\n{}: home {}, gateway {}, {} rooms, {} beds, {} boards, {n_inputs} inputs, {n_outputs} outputs\n",
        files.config.display(),
        config.broker.host,
        config.broker.port,
        config.spool_directory.display(),
        files.home.display(),
        home.home,
        home.gateway,
        home.rooms.len(),
        home.beds.len(),
        home.boards.len(),
    ))
}
