//! `…/credentials` of devices and applications: what opens the door besides tokens, and the end of
//! one of several.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::admin::{Reply, confirm, in_registry, to_the_end};
use super::api::{AddCredential, CredentialAdded, TokenText};
use super::body::JsonBody;
use super::identities::Kind;
use super::parameters::{RawPath, named_in};
use super::refused::{Code, Refused};
use super::service::{ServiceState, Shared};
use super::views::{credential_view, refused_by_registry, terms_change};
use crate::identity::{Adding, Fingerprint, NewBasic, NewCertificate, Registry};
use crate::net::tls::ClientCertificate;

/// `POST …/{one}/credentials`
pub(super) async fn add<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    JsonBody(wanted): JsonBody<AddCredential>,
) -> Result<(StatusCode, Json<CredentialAdded>), Refused> {
    let one = named_in(path, T::ONE)?;
    let new = New::read(&wanted)?;
    let how = Adding {
        terms: terms_change(wanted.terms)?,
        replaces: wanted.replace,
    };
    let doubt = new.doubt(&shared);
    to_the_end(async move {
        let add = move |registry: &Registry| match new {
            New::Basic(new) => registry.add_basic(T::AS, &one, &new, how),
            New::Certificate(new) => registry.add_certificate(T::AS, &one, known(&new), how),
        };
        let added = in_registry(&shared, add).await?;
        let status = if added.is_new {
            let credential = added.credential.id;
            tracing::info!(kind = %T::KIND, credential, "a credential was added");
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let receipt = match added.change {
            Some(change) => Some(confirm(&shared, change).await?),
            None => None,
        };
        let mut warnings = shared.warnings(std::slice::from_ref(&added.credential));
        warnings.extend(doubt);
        let credential = credential_view(added.credential);
        Ok((
            status,
            Json(CredentialAdded {
                credential,
                receipt,
                warnings,
            }),
        ))
    })
    .await
}

/// What is to open the door.
enum New {
    Basic(NewBasic),
    Certificate(ClientCertificate),
}

impl New {
    fn read(wanted: &AddCredential) -> Result<New, Refused> {
        let texts = [&wanted.client_id, &wanted.user_name, &wanted.password];
        let texts = texts.map(|text| text.as_ref().map(TokenText::expose));
        let Some(pem) = &wanted.certificate else {
            let [client_id, user_name, password] = texts;
            let new = NewBasic::new(client_id, user_name, password);
            let new = new.map_err(|error| refused_by_registry(&error))?;
            return Ok(New::Basic(new));
        };
        let refused = |what: &str| {
            Refused::new(Code::BadField, format!("certificate {what}")).target("certificate")
        };
        if texts.iter().any(Option::is_some) || wanted.replace {
            return Err(refused("stands for itself: give it alone"));
        }
        let read = ClientCertificate::from_pem(pem).map_err(|what| refused(&what))?;
        Ok(New::Certificate(read))
    }

    /// Why nobody comes in with a certificate as things are; `None` if that can be.
    fn doubt(&self, shared: &ServiceState) -> Option<String> {
        match (self, &shared.mqtts) {
            (New::Basic(_), _) => None,
            (New::Certificate(read), Some(mqtts)) => mqtts.doubt(read),
            (New::Certificate(_), None) => shared.asks_nobody().map(str::to_owned),
        }
    }
}

fn known(read: &ClientCertificate) -> NewCertificate {
    NewCertificate {
        fingerprint: Fingerprint::of(&read.der),
        ends_ms: read.ends_ms,
    }
}

/// `DELETE …/{one}/credentials/{credential}`
pub(super) async fn end<T: Kind>(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Reply<T::Changed> {
    let not_utf8 = |_| {
        let message = format!("the {} in the address is not percent-encoded UTF-8", T::ONE);
        Refused::new(Code::BadParameter, message).target(T::ONE)
    };
    let Path((one, credential)) = path.map_err(not_utf8)?;
    let credential: u64 = credential.parse().map_err(|_| {
        let message = "no credential has that number; the device or application lists its own";
        Refused::new(Code::CredentialNotFound, message).target("credential")
    })?;
    to_the_end(async move {
        let end = move |registry: &Registry| registry.end_credential(T::AS, &one, credential);
        let (ended, change) = in_registry(&shared, end).await?;
        tracing::info!(kind = %T::KIND, id = %ended.id(), credential, "a credential ended");
        let receipt = confirm(&shared, change).await?;
        Ok(Json(ended.changed(receipt, Vec::new())))
    })
    .await
}
