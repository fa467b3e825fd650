//! MySQL: `deploy/mysql/my.cnf`, one database, and one user for each program that connects.

use super::set_up;
use crate::layout::{Layout, StackName};
use crate::packages::{self, Program};
use crate::secrets::{Secret, write_private};
use crate::stack::{CommandLine, Stack};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

pub fn prepare(stack: &Stack) -> Result<CommandLine> {
    let layout = &stack.layout;
    let log = layout.log("mysql");
    let program = packages::mysqld(layout)?;
    let data = layout.data().join("mysql");
    if !data.exists() {
        initialise(layout, &program, &data, &log)?;
    }
    let users = layout.run().join("mysql-users.sql");
    write_private(&users, users_sql(layout)?.as_bytes())?;
    let socket = socket(layout)?;
    forget_lock_of_the_dead(&socket)?;
    let mut argv = command_line(layout, &program, &data);
    argv.extend([
        format!("--port={}", stack.ports.mysql()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--socket={}", socket.display()),
        format!("--pid-file={}", layout.run().join("mysql.pid").display()),
        // Executed before the first client is let in, at every start: users and passwords are always right.
        format!("--init-file={}", users.display()),
    ]);
    Ok(CommandLine { argv, env: Vec::new() })
}

/// Makes the data folder beside its final place, so that one which is there is whole.
fn initialise(layout: &Layout, program: &Program, data: &Path, log: &Path) -> Result<()> {
    let fresh = data.with_extension("partial");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("removing {}", fresh.display()))?;
    }
    fs::create_dir_all(&fresh)?;
    let mut argv = command_line(layout, program, &fresh);
    // Without a password until the init file of the first start sets one.
    argv.push("--initialize-insecure".to_owned());
    set_up(&argv, log)?;
    fs::rename(&fresh, data).context("moving the new data folder to its place")
}

fn command_line(layout: &Layout, program: &Program, data: &Path) -> Vec<String> {
    let mut argv = program.argv.clone();
    // Must come first.
    argv.push(format!("--defaults-file={}", layout.root().join("deploy/mysql/my.cnf").display()));
    argv.push(format!("--datadir={}", data.display()));
    argv.push("--secure-file-priv=".to_owned());
    if nix::unistd::geteuid().is_root() {
        argv.push("--user=root".to_owned());
    }
    if let Some(root) = &program.root {
        let usr = root.join("usr");
        argv.extend([
            format!("--basedir={}", usr.display()),
            format!("--lc-messages-dir={}", usr.join("share/mysql").display()),
            format!("--character-sets-dir={}", usr.join("share/mysql/charsets").display()),
            format!("--plugin-dir={}", usr.join("lib/mysql/plugin").display()),
        ]);
    }
    argv
}

/// A killed server leaves the lock file of its socket behind, with its pid. The next one refuses to start while anything
/// has that pid: another process, or what is left of the server until its parent has taken its exit code. The data has a
/// lock of its own.
fn forget_lock_of_the_dead(socket: &Path) -> Result<()> {
    let lock = socket.with_extension("sock.lock");
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", lock.display()))
        }
        _ => Ok(()),
    }
}

/// A socket's path may have 107 bytes only, so a deep checkout gets one outside of it.
fn socket(layout: &Layout) -> Result<PathBuf> {
    const LONGEST: usize = 100;
    let path = layout.run().join("mysql.sock");
    if path.as_os_str().len() <= LONGEST {
        return Ok(path);
    }
    let folder =
        std::env::temp_dir().join(format!("switchboard-{}-{}", nix::unistd::geteuid(), layout.stack().folder()));
    crate::secrets::make_private_folder(&folder)?;
    Ok(folder.join("mysql.sock"))
}

/// One statement a line, as `init_file` wants it.
fn users_sql(layout: &Layout) -> Result<String> {
    let (root, chat, debezium) =
        (Secret::MysqlRoot.get(layout)?, Secret::MysqlChat.get(layout)?, Secret::MysqlDebezium.get(layout)?);
    let backup = Secret::MysqlBackup.get(layout)?;
    let mut statements = vec![
        // Written to the binlog on purpose: a connector that registers while no transaction has a GTID yet fails.
        "CREATE DATABASE IF NOT EXISTS chat CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci".to_owned(),
        // The rest is not: users are no business of its readers.
        "SET SESSION sql_log_bin = 0".to_owned(),
        format!("ALTER USER 'root'@'localhost' IDENTIFIED BY '{root}'"),
        format!("CREATE USER IF NOT EXISTS 'chat'@'%' IDENTIFIED BY '{chat}'"),
        format!("ALTER USER 'chat'@'%' IDENTIFIED BY '{chat}'"),
        "GRANT ALL ON chat.* TO 'chat'@'%'".to_owned(),
        // Tests make a database each.
        r"GRANT ALL ON `chat\_%`.* TO 'chat'@'%'".to_owned(),
        format!("CREATE USER IF NOT EXISTS 'debezium'@'%' IDENTIFIED BY '{debezium}'"),
        // A chaos run that was interrupted may have locked it.
        format!("ALTER USER 'debezium'@'%' IDENTIFIED BY '{debezium}' ACCOUNT UNLOCK"),
        "GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'debezium'@'%'"
            .to_owned(),
        // CREATE only because a grant on a table that a migration will make is refused without it.
        "GRANT CREATE, INSERT, UPDATE ON chat.debezium_heartbeat TO 'debezium'@'%'".to_owned(),
        format!("CREATE USER IF NOT EXISTS 'backup'@'%' IDENTIFIED BY '{backup}'"),
        format!("ALTER USER 'backup'@'%' IDENTIFIED BY '{backup}'"),
        "GRANT BACKUP_ADMIN ON *.* TO 'backup'@'%'".to_owned(),
    ];
    if layout.stack() == StackName::Chaos {
        // For the fault that stalls commits, which needs a plugin and its settings.
        let chaos = Secret::MysqlChaos.get(layout)?;
        statements.extend([
            format!("CREATE USER IF NOT EXISTS 'chaos'@'%' IDENTIFIED BY '{chaos}'"),
            "GRANT SYSTEM_VARIABLES_ADMIN, CREATE USER ON *.* TO 'chaos'@'%'".to_owned(),
            "GRANT INSERT ON mysql.plugin TO 'chaos'@'%'".to_owned(),
        ]);
    }
    Ok(statements.into_iter().map(|statement| statement + ";\n").collect())
}
