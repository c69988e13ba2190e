//! Figures of the identity service, all users together. What is counted of one user is asked for
//! by id: no label ever names one.

use metrics::{Counter, Gauge, Unit};

use super::list::{Figure, Kind, figure, labelled};
use super::{counters, one_counter, one_gauge};

/// What the identity service says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct UsersFigures {
    /// Users in the registry.
    pub users: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens issued, for each of the scopes in the order of the label.
    pub issued: [u64; 5],
    /// Revocations of all tokens of a user.
    pub revocations: u64,
}

/// Where they go.
pub(super) struct UsersHandles {
    users: Gauge,
    tokens: Gauge,
    issued: Vec<Counter>,
    revocations: Counter,
    expired: Counter,
}

impl UsersHandles {
    pub(super) fn new() -> Self {
        Self {
            users: one_gauge(&USERS),
            tokens: one_gauge(&USER_TOKENS),
            issued: counters(&USER_TOKENS_ISSUED),
            revocations: one_counter(&USER_REVOCATIONS),
            expired: one_counter(&CONNECTIONS_EXPIRED),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub(super) fn set(&self, figures: UsersFigures) {
        self.users.set(figures.users as f64);
        self.tokens.set(figures.tokens as f64);
        for (counter, issued) in self.issued.iter().zip(figures.issued) {
            counter.absolute(issued);
        }
        self.revocations.absolute(figures.revocations);
    }

    pub(super) fn expired(&self) {
        self.expired.increment(1);
    }
}

pub(super) const USERS: Figure = figure(
    "tollgate_users",
    Kind::Gauge,
    Unit::Count,
    "Users of the identity service.",
);
pub(super) const USER_TOKENS: Figure = figure(
    "tollgate_user_tokens",
    Kind::Gauge,
    Unit::Count,
    "Tokens of users, with those that expired a short while ago.",
);
pub(super) const USER_TOKENS_ISSUED: Figure = labelled(
    figure(
        "tollgate_user_tokens_issued_total",
        Kind::Counter,
        Unit::Count,
        "Tokens issued to users, by scope; one with two scopes counts for both.",
    ),
    "scope",
    &[
        "chat",
        "chat.join",
        "chat.join.limited",
        "voip",
        "voip.join",
    ],
);
pub(super) const USER_REVOCATIONS: Figure = figure(
    "tollgate_user_revocations_total",
    Kind::Counter,
    Unit::Count,
    "Times that all tokens of a user were revoked.",
);
pub(super) const CONNECTIONS_EXPIRED: Figure = figure(
    "tollgate_connections_expired_total",
    Kind::Counter,
    Unit::Count,
    "Connections that ended because their token expired.",
);
