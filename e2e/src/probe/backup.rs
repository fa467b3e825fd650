//! A copy of the database's folder, made by MySQL's clone plugin while the server goes on.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, mysql::MySqlConnectOptions};

use crate::endpoints::Endpoints;

/// Who may make one, and do nothing else.
const USER: &str = "backup";

#[derive(Debug, Args)]
pub struct Options {
    /// The password of the user `backup`
    #[arg(long)]
    password_file: PathBuf,
    /// A folder that is not there yet
    #[arg(long)]
    to: PathBuf,
}

pub async fn run(endpoints: &Endpoints, options: &Options) -> Result<()> {
    let file = &options.password_file;
    let password = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let chat: MySqlConnectOptions = endpoints.mysql.parse().context("the address of MySQL")?;
    let login = MySqlConnectOptions::new().host(chat.get_host()).port(chat.get_port());
    let login = login.username(USER).password(password.trim());
    let mut mysql = MySqlConnection::connect_with(&login).await.context("logging in to MySQL for a backup")?;
    let to = options.to.to_str().filter(|path| !path.contains(['\'', '\\']));
    let to = to.with_context(|| format!("{:?} is no plain text", options.to))?;
    let sql = format!("CLONE LOCAL DATA DIRECTORY = '{to}'");
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut mysql).await.context(sql)?;
    mysql.close().await?;
    println!("a copy of the database is in {to}");
    Ok(())
}
