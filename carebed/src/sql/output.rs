//! Where answers go: standard output, or a file that is whole or not there.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Stdout, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// An output that is being written. A file has its name once it is [finished](Self::finish); until then its name ends in `.part`.
#[derive(Debug)]
pub(super) struct Output {
    to: To,
    /// Whoever read it wants no more, as in `carebed sql … | head`.
    is_closed: bool,
}

#[derive(Debug)]
enum To {
    Stdout(BufWriter<Stdout>),
    File { part: BufWriter<File>, path: PathBuf },
}

impl Output {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let to = match path {
            None => To::Stdout(BufWriter::new(std::io::stdout())),
            Some(path) => {
                let part = part(path);
                let file = File::create(&part).with_context(|| format!("failed to make {}", part.display()))?;
                To::File { part: BufWriter::new(file), path: path.to_owned() }
            }
        };
        Ok(Self { to, is_closed: false })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Everything is written.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        match self.flush() {
            Err(_) if self.is_closed => return Ok(()),
            flushed => flushed.context("failed to write the answer")?,
        }
        let To::File { part, path } = self.to else { return Ok(()) };
        let named = part.get_ref().sync_all().and_then(|()| std::fs::rename(self::part(&path), &path));
        named.with_context(|| format!("failed to write {}", path.display()))
    }
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = match &mut self.to {
            To::Stdout(out) => out.write(bytes),
            To::File { part, .. } => part.write(bytes),
        };
        self.note(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = match &mut self.to {
            To::Stdout(out) => out.flush(),
            To::File { part, .. } => part.flush(),
        };
        self.note(flushed)
    }
}

impl Output {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.is_closed |= result.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        result
    }
}
