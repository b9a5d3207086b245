//! Compiles every folder under `profiles/` into the crate, so that adding a device touches nothing but its folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=profiles");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?).join("profiles");
    let mut list = String::from("&[\n");
    for vendor in sorted(&root)? {
        for model in sorted(&vendor)? {
            let name = model.strip_prefix(&root).map_err(io::Error::other)?;
            let captures = model.join("captures");
            let captures = if captures.is_dir() { sorted(&captures)? } else { Vec::new() };
            // Not the whole path: what was built in one checkout may be used from another.
            let include = |path: &Path| match path.strip_prefix(&root) {
                Ok(path) => format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/profiles/\", {path:?}))"),
                Err(_) => format!("include_str!({path:?})"),
            };
            let captures: Vec<String> = captures
                .iter()
                .map(|path| format!("({:?}, {})", path.file_name().unwrap_or_default(), include(path)))
                .collect();
            writeln!(
                list,
                "    Source {{ name: {name:?}, text: {}, captures: &[{}] }},",
                include(&model.join("profile.toml")),
                captures.join(", ")
            )
            .map_err(io::Error::other)?;
        }
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("shipped.rs"), list)
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}
