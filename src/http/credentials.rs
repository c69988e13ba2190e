//! `…/credentials` of devices and applications: what opens the door besides tokens, and the end of
//! one of several.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::admin::{Reply, confirm, in_registry, to_the_end};
use super::api::{AddCredential, CredentialAdded};
use super::body::JsonBody;
use super::identities::Kind;
use super::parameters::{RawPath, bad, named_in};
use super::refused::{Code, Refused};
use super::service::Shared;
use super::views::{credential_view, refused_by_registry};
use crate::identity::{NewBasic, Registry, RegistryError};

/// `POST …/{one}/credentials`
pub(super) async fn add<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    JsonBody(wanted): JsonBody<AddCredential>,
) -> Result<(StatusCode, Json<CredentialAdded>), Refused> {
    let one = named_in(path, T::ONE)?;
    let text =
        |text: &Option<super::api::TokenText>| text.as_ref().map(|text| text.expose().to_owned());
    let (client_id, user_name) = (text(&wanted.client_id), text(&wanted.user_name));
    let password = text(&wanted.password);
    let new = NewBasic::new(
        client_id.as_deref(),
        user_name.as_deref(),
        password.as_deref(),
    )
    .map_err(|error| refused_by_registry(&error))?;
    let add = move |registry: &Registry| registry.add_basic(T::AS, &one, &new);
    let added = in_registry_naming(&shared, add, "user_name").await?;
    let (credential, is_new) = added;
    let status = if is_new {
        tracing::info!(kind = %T::KIND, credential = credential.id, "MQTT Basic credentials added");
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let credential = credential_view(credential);
    Ok((status, Json(CredentialAdded { credential })))
}

/// `DELETE …/{one}/credentials/{credential}`
pub(super) async fn end<T: Kind>(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Reply<T::Changed> {
    let Path((one, credential)) = path.map_err(|_| {
        let message = format!("the {} in the address is not percent-encoded UTF-8", T::ONE);
        Refused::new(Code::BadParameter, message).target(T::ONE)
    })?;
    let credential: u64 = credential
        .parse()
        .map_err(|_| bad("credential", "must be the number of a credential"))?;
    to_the_end(async move {
        let end = move |registry: &Registry| registry.end_credential(T::AS, &one, credential);
        let (ended, change) = in_registry(&shared, end).await?;
        tracing::info!(kind = %T::KIND, id = %ended.id(), credential, "a credential ended");
        let receipt = confirm(&shared, change).await?;
        Ok(Json(ended.changed(receipt)))
    })
    .await
}

/// As [`in_registry`]; of names that are taken the field is named that has them here.
async fn in_registry_naming<R: Send + 'static>(
    shared: &Shared,
    ask: impl FnOnce(&Registry) -> Result<R, RegistryError> + Send + 'static,
    field: &'static str,
) -> Result<R, Refused> {
    let asked = in_registry(shared, ask).await;
    asked.map_err(|refused| match refused.code {
        Code::TokenTaken => refused.target(field),
        _ => refused,
    })
}
