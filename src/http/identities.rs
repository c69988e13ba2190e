//! Devices and applications: the same endpoints for both, each with its own words.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use super::access;
use super::admin::{ALL_RECORDS, Reply, confirm, foresee_all, in_registry, to_the_end};
use super::api::{
    ADMIN_PREFIX, AppChanged, AppCreated, AppPage, AppRotated, AppView, ChangeScope, ChangeTerms,
    Create, DeviceChanged, DeviceCreated, DevicePage, DeviceView, Receipt, Revoke, Rotate, Rotated,
    Terms, TokenText,
};
use super::body::{JsonBody, OptionalJsonBody};
use super::parameters::{Parameters, RawPath, named_in, page_of};
use super::refused::{Code, Refused};
use super::revocations;
use super::service::{ServiceState, Shared};
use super::views::{app_view, device_name, device_view, refused_by_registry, terms_change};
use crate::identity::{
    APPLICATION, Application, As, Change, CredentialInfo, DEVICE, Device, DeviceToken,
    GRACE_DEFAULT_S, Identified, IdentityKind, Registry, RegistryError, Rotation, Scope,
    ScopeChange, TokenReport,
};
use crate::journal::Offset;

/// A kind of identity, and its words in addresses and bodies.
pub(super) trait Kind: Identified + Sized + Send + 'static {
    const AS: As<Self>;
    const KIND: IdentityKind;
    /// What one is called in addresses and errors.
    const ONE: &'static str;
    /// What all of them are called in addresses.
    const ALL: &'static str;
    type View: Serialize + Send;
    type Page: Serialize + Send;
    type Created: Serialize + Send;
    type Rotated: Serialize + Send + 'static;
    type Changed: Serialize + Send + 'static;

    fn id(&self) -> Uuid;
    fn name(&self) -> &str;
    fn credentials(&self) -> &[CredentialInfo];
    /// What it may publish to and receive, as it was asked for.
    fn filters(&self) -> [&[String]; 2];
    fn view(self) -> Self::View;
    fn page(found: Vec<Self>, next: Option<String>) -> Self::Page;
    fn created(self, token: TokenText, warnings: Vec<String>) -> Self::Created;
    fn rotated(self, token: TokenText, receipt: Receipt, warnings: Vec<String>) -> Self::Rotated;
    fn changed(self, receipt: Receipt, warnings: Vec<String>) -> Self::Changed;

    /// A chosen token that it can carry.
    fn token(shared: &ServiceState, text: &TokenText) -> Result<DeviceToken, Refused>;

    /// Lets go of what is kept of one that was deleted, outside of the registry.
    fn forget(&self, _shared: &ServiceState) {}

    /// What a reply warns of.
    fn warnings(&self, shared: &ServiceState) -> Vec<String> {
        shared.warnings(self.credentials())
    }
}

/// `GET …`
pub(super) async fn list<T: Kind>(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Reply<T::Page> {
    let page = page_of(Parameters::new(query.as_deref())?)?;
    let page = move |registry: &Registry| registry.page_of(T::AS, page);
    let (found, more) = in_registry(&shared, page).await?;
    let last = found.last().filter(|_| more);
    let next = last.map(|last| last.name().to_owned());
    Ok(Json(T::page(found, next)))
}

/// `POST …`
pub(super) async fn create<T: Kind>(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<Create>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<T::Created>), Refused> {
    let name = device_name(&wanted.name)?;
    let token = chosen_token::<T>(&shared, wanted.token.clone())?;
    let scope = Scope::new(T::KIND, &wanted.publish, &wanted.subscribe)
        .map_err(|error| refused_by_registry(&error))?;
    let terms = terms_change(wanted.terms.clone())?;
    let create =
        move |registry: &Registry| match registry.create_as(T::AS, &name, &scope, &terms, token) {
            Ok((made, token)) => {
                let text = TokenText::new(token.expose().to_owned());
                Ok((StatusCode::CREATED, made, text))
            }
            Err(error) => match made_before::<T>(registry, &wanted, &error) {
                Some((made, text)) => Ok((StatusCode::OK, made, text)),
                None => Err(error),
            },
        };
    let (status, made, token) = in_registry(&shared, create).await?;
    if status == StatusCode::CREATED {
        note::<T>(&made, "created");
    }
    let location = format!("{ADMIN_PREFIX}/{}/{}", T::ALL, made.id());
    let warnings = made.warnings(&shared);
    Ok((
        status,
        [(header::LOCATION, location)],
        Json(made.created(token, warnings)),
    ))
}

/// What an equal request has made before: its caller, who named the token, may not have got the
/// reply. Nothing else recognises a repetition, as texts of tokens are not kept.
fn made_before<T: Kind>(
    registry: &Registry,
    wanted: &Create,
    error: &RegistryError,
) -> Option<(T, TokenText)> {
    let is_taken = matches!(
        error,
        RegistryError::NameTaken { .. } | RegistryError::TokenTaken { .. }
    );
    let token = wanted.token.clone().filter(|_| is_taken)?;
    let made = registry.one(T::AS, &wanted.name).ok()?;
    let is_same = made.name() == wanted.name
        && made.filters() == [wanted.publish.as_slice(), wanted.subscribe.as_slice()];
    let owner = match registry.check_token(token.expose()).ok()? {
        TokenReport::Live(live) => live.id,
        _ => return None,
    };
    (is_same && owner == made.id()).then_some((made, token))
}

/// `GET …/{one}`
pub(super) async fn show<T: Kind>(State(shared): State<Shared>, path: RawPath) -> Reply<T::View> {
    let one = named_in(path, T::ONE)?;
    let found = in_registry(&shared, move |registry| registry.one(T::AS, &one)).await?;
    Ok(Json(found.view()))
}

/// `POST …/{one}/rotate`
pub(super) async fn rotate<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    OptionalJsonBody(wanted): OptionalJsonBody<Rotate>,
) -> Reply<T::Rotated> {
    let one = named_in(path, T::ONE)?;
    let token = chosen_token::<T>(&shared, wanted.token)?;
    let rotation = Rotation {
        token,
        terms: terms_change(wanted.terms)?,
        grace_s: wanted.grace_s.unwrap_or(GRACE_DEFAULT_S),
        retire_on_use: wanted.retire_on_use,
    };
    to_the_end(async move {
        let rotate = move |registry: &Registry| registry.rotate_with(T::AS, &one, rotation);
        let (rotated, token, change) = in_registry(&shared, rotate).await?;
        note::<T>(&rotated, "given a new token");
        let receipt = confirm(&shared, change).await?;
        let token = TokenText::new(token.expose().to_owned());
        let newest = rotated.credentials().last().map(std::slice::from_ref);
        let warnings = shared.warnings(newest.unwrap_or_default());
        Ok(Json(rotated.rotated(token, receipt, warnings)))
    })
    .await
}

/// `POST …/{one}/rollback`
pub(super) async fn roll_back<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
) -> Reply<T::Changed> {
    let one = named_in(path, T::ONE)?;
    let back = move |registry: &Registry| registry.roll_back(T::AS, &one);
    change::<T>(shared, "given its old token back", back, nothing).await
}

/// `POST …/{one}/revoke`
pub(super) async fn revoke<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    OptionalJsonBody(wanted): OptionalJsonBody<Revoke>,
) -> Reply<T::Changed> {
    let one = named_in(path, T::ONE)?;
    if wanted.since_ms.is_some() {
        let asked = Shared::clone(&shared);
        let revoked = revocations::one(asked, T::KIND, one, wanted).await?;
        let id = revoked.id.to_string();
        let found = in_registry(&shared, move |registry| registry.one(T::AS, &id)).await?;
        return Ok(Json(found.changed(revoked.receipt, Vec::new())));
    }
    if wanted.dry_run {
        return foresee::<T>(&shared, one).await;
    }
    let revoke = move |registry: &Registry| registry.revoke_as(T::AS, &one);
    change::<T>(shared, "revoked", revoke, nothing).await
}

/// `DELETE …/{one}`
pub(super) async fn delete<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    RawQuery(query): RawQuery,
) -> Reply<T::Changed> {
    let one = named_in(path, T::ONE)?;
    let mut parameters = Parameters::new(query.as_deref())?;
    let is_dry = parameters.flag("dry_run")?;
    parameters.finish(&["dry_run"])?;
    if is_dry {
        return foresee::<T>(&shared, one).await;
    }
    let delete = move |registry: &Registry| registry.delete_as(T::AS, &one, ALL_RECORDS);
    let forget = |gone: &T, shared: &ServiceState| {
        gone.forget(shared);
        Vec::new()
    };
    change::<T>(shared, "deleted", delete, forget).await
}

/// `PATCH …/{one}/scope`
pub(super) async fn scope<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    JsonBody(wanted): JsonBody<ChangeScope>,
) -> Reply<T::Changed> {
    let one = named_in(path, T::ONE)?;
    if wanted == ChangeScope::default() {
        let message = "publish or subscribe: give the list that is to change; an empty one, [], \
                       allows nothing more";
        return Err(Refused::new(Code::BadField, message).target("publish"));
    }
    let wanted = ScopeChange {
        publish: wanted.publish,
        subscribe: wanted.subscribe,
    };
    let rescope = move |registry: &Registry| registry.set_scope(T::AS, &one, wanted);
    change::<T>(shared, "given a new scope", rescope, nothing).await
}

/// `PATCH …/{one}/terms`
pub(super) async fn terms<T: Kind>(
    State(shared): State<Shared>,
    path: RawPath,
    JsonBody(wanted): JsonBody<ChangeTerms>,
) -> Reply<T::Changed> {
    let one = named_in(path, T::ONE)?;
    if wanted.terms == Terms::default() {
        let message = "terms: give what is to change; null takes it away";
        return Err(Refused::new(Code::BadField, message).target("terms"));
    }
    let (credential, terms) = (wanted.credential, terms_change(Some(wanted.terms))?);
    let reterm = move |registry: &Registry| registry.set_terms(T::AS, &one, credential, terms);
    change::<T>(shared, "given new terms", reterm, T::warnings).await
}

/// Nothing more is done, nor warned of.
fn nothing<T: Kind>(_changed: &T, _shared: &ServiceState) -> Vec<String> {
    Vec::new()
}

/// Makes a change, has it confirmed everywhere, and answers with what it ended, and what `then`
/// warns of.
async fn change<T: Kind>(
    shared: Shared,
    what: &'static str,
    make: impl FnOnce(&Registry) -> Result<(T, Change), RegistryError> + Send + 'static,
    then: fn(&T, &ServiceState) -> Vec<String>,
) -> Reply<T::Changed> {
    to_the_end(async move {
        let (changed, change) = in_registry(&shared, make).await?;
        note::<T>(&changed, what);
        let warnings = then(&changed, &shared);
        let receipt = confirm(&shared, change).await?;
        Ok(Json(changed.changed(receipt, warnings)))
    })
    .await
}

/// What revoking or deleting would end; nothing is changed.
async fn foresee<T: Kind>(shared: &ServiceState, one: String) -> Reply<T::Changed> {
    let ask = move |registry: &Registry| registry.foresee_as(T::AS, &one);
    let (found, change) = in_registry(shared, ask).await?;
    let receipts = foresee_all(shared, vec![change]).await?;
    let receipt = receipts.first().copied().unwrap_or_default();
    Ok(Json(found.changed(Receipt::of(&receipt, true), Vec::new())))
}

fn note<T: Kind>(one: &T, what: &str) {
    tracing::info!(kind = %T::KIND, id = %one.id(), "{what}");
}

fn chosen_token<T: Kind>(
    shared: &ServiceState,
    text: Option<TokenText>,
) -> Result<Option<DeviceToken>, Refused> {
    text.map(|text| T::token(shared, &text)).transpose()
}

impl Kind for Device {
    const AS: As<Device> = DEVICE;
    const KIND: IdentityKind = IdentityKind::Device;
    const ONE: &'static str = "device";
    const ALL: &'static str = "devices";
    type View = DeviceView;
    type Page = DevicePage;
    type Created = DeviceCreated;
    type Rotated = Rotated;
    type Changed = DeviceChanged;

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn credentials(&self) -> &[CredentialInfo] {
        &self.credentials
    }

    fn filters(&self) -> [&[String]; 2] {
        [&self.publish, &self.subscribe]
    }

    fn view(self) -> DeviceView {
        device_view(self)
    }

    fn page(found: Vec<Device>, next: Option<String>) -> DevicePage {
        let devices = found.into_iter().map(device_view).collect();
        DevicePage { devices, next }
    }

    fn created(self, token: TokenText, warnings: Vec<String>) -> DeviceCreated {
        DeviceCreated {
            device: device_view(self),
            token,
            warnings,
        }
    }

    fn rotated(self, token: TokenText, receipt: Receipt, warnings: Vec<String>) -> Rotated {
        Rotated {
            device: device_view(self),
            token,
            receipt,
            warnings,
        }
    }

    fn changed(self, receipt: Receipt, warnings: Vec<String>) -> DeviceChanged {
        DeviceChanged {
            device: device_view(self),
            receipt,
            warnings,
        }
    }

    fn token(_shared: &ServiceState, text: &TokenText) -> Result<DeviceToken, Refused> {
        DeviceToken::chosen(text.expose()).map_err(|error| refused_by_registry(&error.into()))
    }

    fn forget(&self, shared: &ServiceState) {
        shared.history.forget(self.id, Offset::new(ALL_RECORDS));
    }
}

impl Kind for Application {
    const AS: As<Application> = APPLICATION;
    const KIND: IdentityKind = IdentityKind::Application;
    const ONE: &'static str = "app";
    const ALL: &'static str = "apps";
    type View = AppView;
    type Page = AppPage;
    type Created = AppCreated;
    type Rotated = AppRotated;
    type Changed = AppChanged;

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn credentials(&self) -> &[CredentialInfo] {
        &self.credentials
    }

    fn filters(&self) -> [&[String]; 2] {
        [&self.publish, &self.subscribe]
    }

    fn view(self) -> AppView {
        app_view(self)
    }

    fn page(found: Vec<Application>, next: Option<String>) -> AppPage {
        let apps = found.into_iter().map(app_view).collect();
        AppPage { apps, next }
    }

    fn created(self, token: TokenText, warnings: Vec<String>) -> AppCreated {
        AppCreated {
            app: app_view(self),
            token,
            warnings,
        }
    }

    fn rotated(self, token: TokenText, receipt: Receipt, warnings: Vec<String>) -> AppRotated {
        AppRotated {
            app: app_view(self),
            token,
            receipt,
            warnings,
        }
    }

    fn changed(self, receipt: Receipt, warnings: Vec<String>) -> AppChanged {
        AppChanged {
            app: app_view(self),
            receipt,
            warnings,
        }
    }

    fn token(shared: &ServiceState, text: &TokenText) -> Result<DeviceToken, Refused> {
        if access::admin(&shared.secrets, &shared.registry, text.expose()).is_some() {
            let message = "token is an admin token, which no application may carry";
            return Err(Refused::new(Code::BadField, message).target("token"));
        }
        DeviceToken::chosen_for_application(text.expose())
            .map_err(|error| refused_by_registry(&error.into()))
    }
}
