//! What of clients the audit is told: who was let in, who was refused, whose session went to
//! another connection. Nobody waits for it, and nothing of it is done for telemetry.

use std::net::IpAddr;

use uuid::Uuid;

use super::authenticate;
use super::connection::Connection;
use super::greeter::Greeter;
use super::handshake::Arrival;
use super::output::Output;
use super::worker::{Shared, Worker};
use crate::audit::{ClientId, Connected, RefusedClientNotice, TakenOver};
use crate::identity::Principal;
use crate::metrics::ConnectRefusal as Refusal;
use crate::mqtt::wire::Connect;

/// What a client that is refused has shown of itself.
#[derive(Debug, Default)]
pub(super) struct Shown {
    client_id: ClientId,
    digests: Vec<[u8; 32]>,
    known: Option<(Uuid, u64)>,
}

impl Shown {
    /// Its client id alone.
    pub(super) fn of(connect: &Connect<'_>) -> Shown {
        Shown {
            client_id: client_id(connect),
            ..Shown::default()
        }
    }

    /// With a credential that opens nothing.
    pub(super) fn failed(shared: &Shared, connect: &Connect<'_>) -> Shown {
        let registry = &shared.registry;
        let digests = match authenticate::user_token(connect) {
            Some((_, token)) => registry.shown_user_digests(token),
            None => registry.shown_digests(authenticate::shown(connect)),
        };
        Shown {
            digests,
            ..Shown::of(connect)
        }
    }

    /// A bearer that opens nothing.
    pub(super) fn bearer(shared: &Shared, token: &str) -> Shown {
        Shown {
            digests: shared.registry.shown_user_digests(token.as_bytes()),
            ..Shown::default()
        }
    }

    /// Whose credential it is, which is a good one.
    pub(super) fn with_principal(self, principal: &Principal) -> Shown {
        let known = Some((principal.identity, principal.credential));
        Shown { known, ..self }
    }

    /// What arrives at a session's home, where it may be refused as well.
    pub(super) fn arriving(arrival: &Arrival) -> Shown {
        let shown = Shown {
            client_id: arrival.told_id.clone(),
            ..Shown::default()
        };
        shown.with_principal(&arrival.principal)
    }
}

/// What is told of its client id.
pub(super) fn client_id(connect: &Connect<'_>) -> ClientId {
    let password = std::str::from_utf8(connect.password.unwrap_or(&[]));
    let shown = [connect.user_name.unwrap_or(""), password.unwrap_or("")];
    if shown == ["", ""] {
        // It may be the credential itself (TB-02).
        return ClientId::alone(connect.client_id);
    }
    ClientId::beside(connect.client_id, shown)
}

impl Shared {
    /// A client from `from` was refused.
    pub(super) fn tell_refused(&self, from: IpAddr, why: Refusal, shown: Shown) {
        self.audit.refused(RefusedClientNotice {
            from,
            client_id: shown.client_id,
            reason: why.label(),
            is_throttled: why == Refusal::Throttled,
            digests: shown.digests,
            known: shown.known,
        });
    }
}

impl Greeter {
    /// Counts a client that is refused, and tells of it.
    pub(super) fn refused(&self, from: IpAddr, why: Refusal, shown: Shown) {
        self.count_connect_refused(why);
        self.shared.tell_refused(from, why, shown);
    }
}

impl Worker {
    /// As [`Greeter::refused`], at the session's home.
    pub(super) fn refused(&self, from: IpAddr, why: Refusal, shown: Shown) {
        self.count_connect_refused(why);
        self.shared.tell_refused(from, why, shown);
    }

    /// A client was let in.
    pub(super) fn tell_connected(
        &self,
        connection: &Connection,
        client_id: &ClientId,
        output: &Output,
    ) {
        let principal = &connection.principal;
        let now = std::time::Instant::now();
        self.shared.audit.connected(now, || Connected {
            from: connection.from,
            over: output.over(),
            kind: principal.kind.as_str(),
            identity: principal.identity,
            credential: principal.credential,
            client_id: client_id.clone(),
        });
    }

    /// A client takes the session of an older connection over.
    pub(super) fn tell_taken_over(&self, older: &Connection, arrival: &Newcomer<'_>) {
        self.shared.audit.taken_over(TakenOver {
            identity: older.principal.identity,
            credential: arrival.principal.credential,
            before: older.from,
            from: arrival.from,
            client_id: arrival.client_id.clone(),
        });
    }
}

/// Who takes a session over.
pub(super) struct Newcomer<'a> {
    principal: &'a Principal,
    from: IpAddr,
    client_id: &'a ClientId,
}

impl<'a> Newcomer<'a> {
    pub(super) fn new(
        principal: &'a Principal,
        from: IpAddr,
        client_id: &'a ClientId,
    ) -> Newcomer<'a> {
        Newcomer {
            principal,
            from,
            client_id,
        }
    }
}
