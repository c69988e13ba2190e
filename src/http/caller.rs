//! Who asks, for the audit: known once a request was let in, and carried with its work.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use super::access;
use crate::audit::Caller;

tokio::task_local! {
    static CALLER: Arc<Caller>;
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The address it came in on.
    pub(super) local: IpAddr,
    /// Where it comes from.
    pub(super) peer: IpAddr,
}

/// Who shows an admin token, as the audit names it; `None` for a stranger, who changes nothing.
pub(super) fn of_admin(caller: &access::Caller, ends: Ends) -> Option<Caller> {
    let access::Caller::Admin(admin) = caller else {
        return None;
    };
    let by = match admin.number {
        None => "admin".into(),
        Some(number) => format!("admin token {number} {}", admin.name).into(),
    };
    let from = Some(ends.peer);
    Some(Caller { by, from })
}

/// Does the work of a request in the name of its caller.
pub(super) async fn in_the_name_of<F: Future>(caller: Option<Arc<Caller>>, work: F) -> F::Output {
    match caller {
        Some(caller) => CALLER.scope(caller, work).await,
        None => work.await,
    }
}

/// In whose name this task works; `None` outside of a request.
pub(super) fn caller() -> Option<Arc<Caller>> {
    CALLER.try_with(Arc::clone).ok()
}

/// The endpoint that a path belongs to, as its description has it: what stands in the path itself
/// may be anything, a token too (SEC-55).
pub(super) fn endpoint(patterns: &[&'static str], path: &str) -> Option<&'static str> {
    let steps = || path.split('/');
    let is_match = |pattern: &&&'static str| {
        let named = pattern.split('/');
        named.clone().count() == steps().count()
            && named
                .zip(steps())
                .all(|(named, step)| named.starts_with('{') || named == step)
    };
    // Fixed steps before named ones, as the router does it.
    let found = patterns.iter().filter(is_match);
    found
        .min_by_key(|pattern| pattern.matches('{').count())
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_55_a_path_is_named_by_its_endpoint_alone() {
        let patterns = super::super::routes::patterns();
        let of = |path| endpoint(&patterns, path);
        let revoke = Some("/admin/v1/devices/{device}/revoke");
        assert_eq!(of("/admin/v1/devices/tgd_secret/revoke"), revoke);
        assert_eq!(of("/admin/v1/tokens/check"), Some("/admin/v1/tokens/check"));
        assert_eq!(of("/admin/v1/tokens/tgd_secret"), None);
        assert_eq!(
            of("/identities/8%3Aacs%3Ax/:issueAccessToken"),
            Some("/identities/{id}/:issueAccessToken")
        );
    }
}
