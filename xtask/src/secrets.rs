//! Passwords and client secrets: made at first use, kept in the stack's folder, readable by their owner only.

use crate::layout::Layout;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of randomness in a secret; as text two hexadecimal digits each, safe in URLs, SQL and YAML.
const BYTES: usize = 24;

#[derive(Debug, Clone, Copy)]
pub enum Secret {
    MysqlRoot,
    MysqlChat,
    MysqlDebezium,
    MysqlBackup,
    MysqlChaos,
    SocketGateway,
}

impl Secret {
    pub fn path(self, layout: &Layout) -> PathBuf {
        layout.secrets().join(match self {
            Self::MysqlRoot => "mysql-root.password",
            Self::MysqlChat => "mysql-chat.password",
            Self::MysqlDebezium => "mysql-debezium.password",
            Self::MysqlBackup => "mysql-backup.password",
            Self::MysqlChaos => "mysql-chaos.password",
            Self::SocketGateway => "socket-gateway.secret",
        })
    }

    /// Reads the secret, and makes it first if it isn't there.
    pub fn get(self, layout: &Layout) -> Result<String> {
        read_or_make(&self.path(layout))
    }
}

/// Copies of a service are prepared at the same time and ask for the same secret: one of them makes it. Other processes
/// are kept out by the stack's lock.
fn read_or_make(path: &Path) -> Result<String> {
    static MAKING: Mutex<()> = Mutex::new(());
    let making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        let mut random = [0; BYTES];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).context("/dev/urandom")?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(path, text.as_bytes())?;
    }
    drop(making);
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

pub fn make_private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}

/// Writes a file that only its owner may read, whole or not at all: readers see the old content or the new.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_private_folder(folder)?;
    }
    let unfinished = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn all_who_ask_for_a_new_secret_at_once_get_the_same() {
        let folder = std::env::temp_dir().join(format!("switchboard-secrets-{}", std::process::id()));
        for round in 0..50 {
            let (path, start) = (folder.join(format!("{round}.secret")), Barrier::new(4));
            let got: Vec<String> = std::thread::scope(|scope| {
                let ask = || {
                    start.wait();
                    read_or_make(&path).unwrap()
                };
                let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                asking.into_iter().map(|asked| asked.join().unwrap()).collect()
            });
            assert!(got.iter().all(|secret| secret.len() == 2 * BYTES && *secret == got[0]), "{got:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
