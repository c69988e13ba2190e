//! `tollgate identity …`: the identity service. Users and their tokens are made by signed requests,
//! as a back end makes them; its access keys, lists and figures by the admin API.

mod link;

use clap::{Args, Subcommand, value_parser};

use crate::{
    cli::{
        CliError,
        client::{Client, Target, path_step},
        moment, print, print_json,
        revoke::{self, DryRun},
        table::{aligned, shown},
    },
    config::{Config, Sources},
    http::api::{
        AccessKeyRenewed, AccessKeyView, CreateIdentity, IdentityCreated, IdentityServiceView,
        IdentityToken, IssueToken, UserPage, UserView,
    },
};
use link::Link;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    account: Account,
    /// Print the broker's reply as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// How requests are signed and where they go.
#[derive(Debug, Args)]
struct Account {
    /// `endpoint=https://HOST:PORT/;accesskey=KEY`, for user and token; `-` reads it from standard
    /// input, where no list of processes shows it
    #[arg(
        long,
        global = true,
        value_name = "TEXT",
        env = "AZURE_COMMUNICATION_CONNECTION_STRING",
        hide_env_values = true
    )]
    connection_string: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, delete, list or show users
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Issue a token, or revoke all tokens of a user
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Make the access keys that back ends sign with, or list them
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create a user and print its id
    Create,
    /// Remove a user with its tokens and everything that is kept of it
    Delete(Whom),
    /// List all users by id
    List,
    /// Show a user and what was counted of it since the broker began
    Show(Whom),
    /// End all tokens of users and say what ended, by the admin API; of several all or none
    Revoke {
        /// The users' ids, 8:acs:…
        #[arg(long, value_name = "ID", required = true, num_args = 1..)]
        user: Vec<String>,
        #[command(flatten)]
        dry: DryRun,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Issue a token, to a new user unless one is named; it is shown once
    Issue {
        /// What it allows: chat, chat.join, chat.join.limited, voip, voip.join
        #[arg(long, required = true, num_args = 1.., value_name = "SCOPE")]
        scope: Vec<String>,
        /// The user's id, 8:acs:…
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// Minutes that it lives, 60 to 1440 [default: 1440]
        #[arg(long, value_name = "MINUTES", value_parser = value_parser!(u32).range(60..=1440))]
        expires_in: Option<u32>,
    },
    /// End all tokens of a user and close its connections; the user stays
    Revoke(Whom),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make an access key and print its connection string, once; the key before it ends at once,
    /// and with it the tokens that it asked for
    Renew {
        /// primary or secondary
        #[arg(value_parser = ["primary", "secondary"])]
        key: String,
        /// What back ends reach the broker by [default: https.listen and certs.names say]
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
    },
    /// List the access keys in use, without their texts
    List,
}

#[derive(Debug, Args)]
struct Whom {
    /// The user's id, 8:acs:…
    #[arg(long, value_name = "ID")]
    user: String,
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let json = arguments.json;
    match arguments.command {
        Command::User { command } => {
            let signed = |account| link(account, sources);
            let operator = || Client::new(&arguments.target, sources);
            match command {
                UserCommand::Create => create(&signed(arguments.account)?, json),
                UserCommand::Delete(Whom { user }) => delete(&signed(arguments.account)?, &user),
                UserCommand::List => list_users(&operator()?, json),
                UserCommand::Show(Whom { user }) => show_user(&operator()?, &user, json),
                UserCommand::Revoke { user, dry } => {
                    revoke::all(&operator()?, &dry.of_users(user), json)
                }
            }
        }
        Command::Token { command } => {
            let link = link(arguments.account, sources)?;
            match command {
                TokenCommand::Issue {
                    scope,
                    user,
                    expires_in,
                } => issue(&link, scope, user, expires_in, json),
                TokenCommand::Revoke(Whom { user }) => revoke(&link, &user),
            }
        }
        Command::Key { command } => {
            let client = Client::new(&arguments.target, sources)?;
            match command {
                KeyCommand::Renew { key, endpoint } => renew(&client, &key, endpoint, json),
                KeyCommand::List => list(&client, json),
            }
        }
    }
}

fn link(account: Account, sources: &Sources) -> Result<Link, CliError> {
    let text = account.connection_string.ok_or_else(|| {
        CliError::Usage(
            "give a connection string with --connection-string or \
             AZURE_COMMUNICATION_CONNECTION_STRING; `tollgate identity key renew primary` makes one"
                .to_owned(),
        )
    })?;
    let config = Config::load(sources)?;
    Link::new(text, &config)
}

fn create(link: &Link, json: bool) -> Result<(), CliError> {
    let created: IdentityCreated = link.post("/identities", &CreateIdentity::default())?;
    if json {
        return print_json(&created);
    }
    print(&format!("{}\n", shown(&created.identity.id)))
}

fn delete(link: &Link, user: &str) -> Result<(), CliError> {
    link.delete(&format!("/identities/{}", path_step(user)))?;
    print(&format!("deleted {}\n", shown(user)))
}

fn issue(
    link: &Link,
    scopes: Vec<String>,
    user: Option<String>,
    expires_in_minutes: Option<u32>,
    json: bool,
) -> Result<(), CliError> {
    let Some(user) = user else {
        let wanted = CreateIdentity {
            create_token_with_scopes: scopes,
            expires_in_minutes,
        };
        let created: IdentityCreated = link.post("/identities", &wanted)?;
        if json {
            return print_json(&created);
        }
        let id = &created.identity.id;
        return match &created.access_token {
            Some(token) => print(&details(id, token)),
            None => Err(CliError::Refused {
                message: format!("it made {id} without a token"),
            }),
        };
    };
    let wanted = IssueToken {
        scopes,
        expires_in_minutes,
    };
    let path = format!("/identities/{}/:issueAccessToken", path_step(&user));
    let token: IdentityToken = link.post(&path, &wanted)?;
    if json {
        return print_json(&token);
    }
    print(&details(&user, &token))
}

fn details(id: &str, token: &IdentityToken) -> String {
    format!(
        "user     {}\nexpires  {}\ntoken    {}\n",
        shown(id),
        shown(&token.expires_on),
        shown(token.token.expose())
    )
}

fn revoke(link: &Link, user: &str) -> Result<(), CliError> {
    let path = format!("/identities/{}/:revokeAccessTokens", path_step(user));
    link.post_empty(&path)?;
    print(&format!("revoked all tokens of {}\n", shown(user)))
}

fn renew(client: &Client, key: &str, endpoint: Option<String>, json: bool) -> Result<(), CliError> {
    let renewed: AccessKeyRenewed = client.post_empty(&format!("/identity/keys/{key}/renew"))?;
    if json {
        return print_json(&renewed);
    }
    let endpoint = endpoint.unwrap_or_else(|| own_endpoint(&client.config));
    let endpoint = endpoint.trim_end_matches('/');
    print(&format!(
        "endpoint={endpoint}/;accesskey={}\n",
        shown(renewed.access_key.expose())
    ))?;
    let (key, users) = (&renewed.key, renewed.users);
    eprintln!(
        "{} key, version {}; shown once. Tokens of {users} users ended with the key before it, {} \
         connections closed",
        key.name, key.version, renewed.receipt.connections
    );
    if endpoint.starts_with("http:") {
        eprintln!(
            "SDKs always use TLS with a connection string: set https.listen, or give the client \
             endpoint and key apart"
        );
    }
    Ok(())
}

/// What clients reach the broker by, as far as the configuration tells.
fn own_endpoint(config: &Config) -> String {
    let host = config.certs.names.first();
    let host = host.map_or("localhost", String::as_str);
    let (scheme, listen) = match config.https.listen.first() {
        Some(address) => ("https", Some(address)),
        None => ("http", config.http.listen.first()),
    };
    match listen.map(std::net::SocketAddr::port) {
        Some(port) if port > 0 => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    }
}

/// Most pages asked for; more is a loop.
const PAGES_MAX: usize = 10_000;

/// Prints each page as it comes.
fn list_users(client: &Client, json: bool) -> Result<(), CliError> {
    let mut after = String::new();
    let heading = ["USER", "CREATED", "TOKENS", "CONNECTIONS"];
    for _ in 0..PAGES_MAX {
        let page: UserPage = client.get(&format!("/users?limit=1000{after}"))?;
        if json {
            print_json(&page)?;
        } else if !page.users.is_empty() {
            let row = |user: &UserView| {
                [
                    shown(&user.id),
                    moment::show_unsigned(user.created_ms),
                    user.tokens.to_string(),
                    user.connections.to_string(),
                ]
            };
            let rows: Vec<_> = page.users.iter().map(row).collect();
            print(&aligned(heading, &rows))?;
        } else {
            print("no users\n")?;
        }
        match page.next {
            Some(next) => after = format!("&after={}", path_step(&next)),
            None => break,
        }
    }
    Ok(())
}

fn show_user(client: &Client, user: &str, json: bool) -> Result<(), CliError> {
    let user: UserView = client.get(&format!("/users/{}", path_step(user)))?;
    if json {
        return print_json(&user);
    }
    let facts = [
        ("user", shown(&user.id)),
        ("created", moment::show_unsigned(user.created_ms)),
        ("generation", user.generation.to_string()),
        ("live tokens", user.tokens.to_string()),
        ("issued", user.issued.to_string()),
        ("revocations", user.revocations.to_string()),
        ("connections", user.connections.to_string()),
        ("connects", user.connects.to_string()),
        ("refused", user.connects_refused.to_string()),
        ("messages in", user.messages_received.to_string()),
        ("messages out", user.messages_delivered.to_string()),
    ];
    let lines = facts
        .iter()
        .map(|(name, value)| format!("{name:12}  {value}\n"));
    print(&lines.collect::<String>())
}

fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let service: IdentityServiceView = client.get("/identity")?;
    if json {
        return print_json(&service);
    }
    if service.keys.is_empty() {
        return print("no access keys; `tollgate identity key renew primary` makes one\n");
    }
    let row = |key: &AccessKeyView| {
        [
            shown(&key.name),
            key.version.to_string(),
            moment::show_unsigned(key.created_ms),
        ]
    };
    let rows: Vec<_> = service.keys.iter().map(row).collect();
    print(&aligned(["KEY", "VERSION", "CREATED"], &rows))
}
