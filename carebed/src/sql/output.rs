//! Where answers go: standard output, or a file that is whole or not there.

use std::fs::{File, Permissions};
use std::io::{BufWriter, ErrorKind, Stdout, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// An output that is being written. A file has its name once it is [finished](Self::finish); what was begun and is not goes
/// again.
#[derive(Debug)]
pub(super) struct Output {
    to: To,
    /// Whoever read it wants no more, as in `carebed sql … | head`.
    is_closed: bool,
}

#[derive(Debug)]
enum To {
    Stdout(BufWriter<Stdout>),
    /// A pipe or a device: there is nothing to put in its place.
    Stream(BufWriter<File>),
    File(BufWriter<File>, Part),
}

/// A file beside the one that it will be.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    whole: PathBuf,
    permissions: Option<Permissions>,
    is_whole: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_whole {
            let _nothing_else_can_be_done = std::fs::remove_file(&self.path);
        }
    }
}

impl Output {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { to: To::Stdout(BufWriter::new(std::io::stdout())), is_closed: false });
        };
        let (whole, permissions) = match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => bail!("{} is a folder\nhint: name a file in it", path.display()),
            Ok(there) if !there.is_file() => {
                let opened = File::options().write(true).open(path);
                let stream = opened.with_context(|| format!("failed to write to {}", path.display()))?;
                return Ok(Self { to: To::Stream(BufWriter::new(stream)), is_closed: false });
            }
            // What a link names is replaced, and not the link.
            Ok(there) => (path.canonicalize()?, Some(there.permissions())),
            Err(_) => (path.to_owned(), None),
        };
        let mut name = whole.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = Part { path: PathBuf::from(name), whole, permissions, is_whole: false };
        let file = File::create(&part.path).with_context(|| format!("failed to make {}", part.path.display()))?;
        Ok(Self { to: To::File(BufWriter::new(file), part), is_closed: false })
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
        let To::File(file, mut part) = self.to else { return Ok(()) };
        let named = file.get_ref().sync_all().and_then(|()| {
            part.permissions.take().map_or(Ok(()), |as_before| std::fs::set_permissions(&part.path, as_before))?;
            std::fs::rename(&part.path, &part.whole)
        });
        named.with_context(|| format!("failed to write {}", part.whole.display()))?;
        part.is_whole = true;
        Ok(())
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.to {
            To::Stdout(out) => out,
            To::Stream(file) | To::File(file, _) => file,
        }
    }

    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.is_closed |= result.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer().write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.writer().flush();
        self.note(flushed)
    }
}
