//! `enroll`: key and request of this gateway's certificate. The key is made here and never leaves the box.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::{Exit, home_file, print};

#[derive(Args)]
pub(super) struct Arguments {
    /// The home file: it names area and gateway.
    #[arg(long, value_name = "FILE", default_value = "/etc/carebed-gateway/home.toml")]
    home: PathBuf,
    /// Where key, request and later the certificate lie.
    #[arg(long, value_name = "DIR", default_value = "/etc/carebed-gateway/tls")]
    directory: PathBuf,
}

pub(super) fn enroll(arguments: &Arguments) -> anyhow::Result<Exit> {
    let home = home_file(&arguments.home)?;
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("failed to make {}", directory.display()))?;
    let path = |end: &str| directory.join(format!("{}.{end}", home.gateway));
    let key = key(&path("key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{}/{}", home.area, home.gateway));
    let request =
        params.serialize_request(&key).and_then(|request| request.pem()).context("failed to make the request")?;
    let csr = path("csr");
    std::fs::write(&csr, request).with_context(|| format!("failed to write {}", csr.display()))?;
    let (directory, gateway) = (directory.display(), &home.gateway);
    print(&format!(
        "{csr}\n\
         next: bring this request (not the key) to the service centre; there: deploy/tls/issue DIR sign {gateway}.csr\n      \
         put ca.pem and {gateway}.pem from there into {directory}, and write into the gateway's configuration:\n      \
         [broker]\n      url = \"mqtts://…:8883\"\n      ca = \"{directory}/ca.pem\"\n      \
         certificate = \"{directory}/{gateway}.pem\"\n      key = \"{directory}/{gateway}.key\"\n",
        csr = csr.display(),
    ))
}

/// The key that is there, or a new one that only its owner may read.
fn key(path: &Path) -> anyhow::Result<KeyPair> {
    let place = || path.display().to_string();
    if path.exists() {
        let pem = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", place()))?;
        return KeyPair::from_pem(&pem)
            .with_context(|| format!("{} holds no key; remove it to make a new one", place()));
    }
    let key = KeyPair::generate().context("failed to make a key")?;
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("failed to make {}", place()))?;
    file.write_all(key.serialize_pem().as_bytes()).with_context(|| format!("failed to write {}", place()))?;
    Ok(key)
}
