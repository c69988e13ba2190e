//! Who may call which endpoint: decided here and nowhere else (SEC-75).
//!
//! The gate finds out who calls; every route says what it needs, as there is no way to make one
//! without; [`guard`] compares the two before the handler sees anything. A caller of whom nothing
//! is known is refused.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::identity_service::{self, Refusal};
use super::parameters::Parameters;
use super::platform::{self, in_platform_form};
use super::refused::{Code, Refused};
use super::service::Shared;
use crate::identity::{Admin, AdminScope, Registry, Secrets};

/// What a caller must have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: open to everybody who reaches the port.
    Nothing,
    /// An admin token with this scope or a larger one.
    Scope(AdminScope),
    /// A signature with an access key of the identity service.
    Signature,
}

/// Who calls. In the extensions of every request that goes on from the gate.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Whoever asks for what is open.
    Stranger,
    /// Who showed an admin token.
    Admin(Admin),
    /// Who signed the request with an access key.
    BackEnd,
}

impl Caller {
    /// Whether what was begun may go on: a token that was revoked, or expired, ends what lasts.
    pub(super) fn may_go_on(&self, registry: &Registry) -> bool {
        match self {
            Caller::Admin(admin) => registry.is_live_admin(admin),
            Caller::Stranger | Caller::BackEnd => false,
        }
    }
}

/// Who shows this text as a bearer token. Each comparison is in constant time.
pub(super) fn admin(secrets: &Secrets, registry: &Registry, presented: &str) -> Option<Admin> {
    if secrets.admin_token_matches(presented) {
        return Some(Admin::built_in());
    }
    registry.admin(presented)
}

impl Needs {
    /// Its name in the description.
    #[cfg(test)]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Needs::Nothing => "none",
            Needs::Scope(scope) => scope.as_str(),
            Needs::Signature => "signature",
        }
    }

    fn check(self, caller: Option<&Caller>) -> Result<(), Refused> {
        match (self, caller) {
            (Needs::Nothing, Some(_)) | (Needs::Signature, Some(Caller::BackEnd)) => Ok(()),
            (Needs::Scope(needed), Some(Caller::Admin(admin))) if admin.scope >= needed => Ok(()),
            (Needs::Scope(needed), Some(Caller::Admin(admin))) => {
                let message = format!(
                    "the scope of this admin token is {}; this needs {needed}",
                    admin.scope
                );
                Err(Refused::new(Code::ScopeMissing, message).target("Authorization"))
            }
            _ => {
                let message = "this endpoint is not for the caller";
                Err(Refused::new(Code::Unauthorized, message).target("Authorization"))
            }
        }
    }
}

/// Puts the check before an endpoint; `reads_query`: the endpoint looks after its parameters.
pub(super) fn guard(
    needs: Needs,
    reads_query: bool,
    endpoint: MethodRouter<Shared>,
) -> MethodRouter<Shared> {
    endpoint.route_layer(from_fn(move |request: Request, next: Next| async move {
        let uri = request.uri();
        let allowed = needs.check(request.extensions().get());
        // Probes of what is open put in what they like, against caches.
        let is_lax = reads_query || needs == Needs::Nothing;
        let fit = allowed.and_then(|()| match uri.query() {
            Some(query) if !is_lax => Parameters::new(Some(query))?.finish(&[]),
            _ => Ok(()),
        });
        match fit {
            Ok(()) => next.run(request).await,
            Err(refused) => in_form_of(uri.path(), refused),
        }
    }))
}

/// A refusal in the form of those whom the path belongs to.
pub(super) fn in_form_of(path: &str, refused: Refused) -> Response {
    if identity_service::is_ours(path) {
        return Refusal::from(refused).into_response();
    }
    if path.starts_with(platform::PREFIX) {
        return in_platform_form(refused);
    }
    refused.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_75_what_is_not_allowed_is_refused() {
        let admin = |scope| {
            let name = "a".into();
            Caller::Admin(Admin {
                number: Some(1),
                name,
                scope,
            })
        };
        let [read, operate, full] = AdminScope::ALL.map(admin);
        let callers = [
            None,
            Some(Caller::Stranger),
            Some(Caller::BackEnd),
            Some(read),
            Some(operate),
            Some(full),
        ];
        let allowed = |needs: Needs| {
            let verdict = |caller: &Option<Caller>| needs.check(caller.as_ref()).is_ok();
            callers.iter().map(verdict).collect::<Vec<_>>()
        };
        let (yes, no) = (true, false);
        assert_eq!(allowed(Needs::Nothing), [no, yes, yes, yes, yes, yes]);
        assert_eq!(allowed(Needs::Signature), [no, no, yes, no, no, no]);
        for (scope, expected) in AdminScope::ALL.into_iter().zip([
            [no, no, no, yes, yes, yes],
            [no, no, no, no, yes, yes],
            [no, no, no, no, no, yes],
        ]) {
            assert_eq!(allowed(Needs::Scope(scope)), expected, "{scope}");
        }
    }
}
