//! `Namespaces`: tenants. One exists when it was made, or when something was made in it; `default` always, since Docker's face lives there.

use std::collections::BTreeMap;

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::namespaces::v1::namespaces_server::Namespaces;
use berth_containerd_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest, GetNamespaceResponse,
    ListNamespacesRequest, ListNamespacesResponse, Namespace as Wire, UpdateNamespaceRequest, UpdateNamespaceResponse,
};
use berth_core::Tenant;
use berth_core::filter::{Fields, map_field, text_field};
use berth_core::objects::{
    ContainerObject, ImageName, Lease, Namespace, ObjectError, Objects, Sandbox,
};
use tonic::{Request, Response, Status};

use super::{Answer, filters, paths};
use crate::Face;
use crate::status::IntoStatus as _;

struct NamespaceFields<'a>(&'a Namespace);

impl Fields for NamespaceFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => text_field(&self.0.name),
            ["labels", key @ ..] => map_field(key, &self.0.labels),
            _ => None,
        }
    }
}

fn wire(namespace: Namespace) -> Wire {
    Wire { name: namespace.name, labels: namespace.labels }
}

/// Its record, or an empty one when only its objects tell of it.
fn find(objects: &Objects, tenant: &Tenant) -> Result<Option<Namespace>, ObjectError> {
    if let Some(found) = objects.find::<Namespace>(tenant, tenant.as_str())? {
        return Ok(Some(found));
    }
    let exists = tenant.is_docker() || !contents(objects, tenant)?.is_empty();
    Ok(exists.then(|| Namespace { name: tenant.to_string(), labels: BTreeMap::new() }))
}

/// What is in it, by kind.
fn contents(objects: &Objects, tenant: &Tenant) -> Result<Vec<&'static str>, ObjectError> {
    let mut kinds = Vec::new();
    let mut note = |kind, count: usize| kinds.extend((count > 0).then_some(kind));
    note("images", objects.list::<ImageName>(tenant)?.len());
    note("containers", objects.list::<ContainerObject>(tenant)?.len());
    note("leases", objects.list::<Lease>(tenant)?.len());
    note("sandboxes", objects.list::<Sandbox>(tenant)?.len());
    Ok(kinds)
}

fn tenant(name: &str) -> Result<Tenant, Status> {
    name.parse::<Tenant>().map_err(|error| error.into_status())
}

fn all(objects: &Objects) -> Result<Vec<Namespace>, ObjectError> {
    let mut found: BTreeMap<String, Namespace> = BTreeMap::new();
    let mut implied: Vec<Tenant> = vec![Tenant::docker()];
    implied.extend(objects.list_all::<ContainerObject>()?.into_iter().map(|(tenant, _)| tenant));
    implied.extend(objects.list_all::<ImageName>()?.into_iter().map(|(tenant, _)| tenant));
    for tenant in implied {
        let name = tenant.to_string();
        found.insert(name.clone(), Namespace { name, labels: BTreeMap::new() });
    }
    for (_, namespace) in objects.list_all::<Namespace>()? {
        found.insert(namespace.name.clone(), namespace);
    }
    Ok(found.into_values().collect())
}

#[tonic::async_trait]
impl Namespaces for Face {
    async fn get(&self, request: Request<GetNamespaceRequest>) -> Answer<GetNamespaceResponse> {
        let tenant = tenant(&request.into_inner().name)?;
        let found = self
            .objects(move |objects| {
                find(objects, &tenant)?.ok_or_else(|| ObjectError::not_found::<Namespace>(tenant.as_str()))
            })
            .await?;
        Ok(Response::new(GetNamespaceResponse { namespace: Some(wire(found)) }))
    }

    async fn list(&self, request: Request<ListNamespacesRequest>) -> Answer<ListNamespacesResponse> {
        let filters = filters(&[request.into_inner().filter])?;
        let namespaces = self.objects(all).await?;
        let namespaces = namespaces.into_iter().filter(|n| filters.matches(&NamespaceFields(n))).map(wire).collect();
        Ok(Response::new(ListNamespacesResponse { namespaces }))
    }

    async fn create(&self, request: Request<CreateNamespaceRequest>) -> Answer<CreateNamespaceResponse> {
        let new = request.into_inner().namespace.unwrap_or_default();
        let namespace = Namespace { name: new.name, labels: new.labels };
        let tenant = tenant(&namespace.name)?;
        let (owner, record) = (tenant.clone(), namespace.clone());
        self.objects(move |objects| objects.create(&owner, &record)).await?;
        let event = wire_events::NamespaceCreate { name: namespace.name.clone(), labels: namespace.labels.clone() };
        self.publish(&tenant, "/namespaces/create", &event, None);
        Ok(Response::new(CreateNamespaceResponse { namespace: Some(wire(namespace)) }))
    }

    async fn update(&self, request: Request<UpdateNamespaceRequest>) -> Answer<UpdateNamespaceResponse> {
        let request = request.into_inner();
        let new = request.namespace.unwrap_or_default();
        let tenant = tenant(&new.name)?;
        let paths = paths(request.update_mask);
        let owner = tenant.clone();
        let changed = self.objects(move |objects| update(objects, &owner, &new, &paths)).await?;
        let event = wire_events::NamespaceUpdate { name: changed.name.clone(), labels: changed.labels.clone() };
        self.publish(&tenant, "/namespaces/update", &event, None);
        Ok(Response::new(UpdateNamespaceResponse { namespace: Some(wire(changed)) }))
    }

    async fn delete(&self, request: Request<DeleteNamespaceRequest>) -> Answer<()> {
        let tenant = tenant(&request.into_inner().name)?;
        let owner = tenant.clone();
        let has_docker = tenant.is_docker() && !self.engine.container_objects().is_empty();
        self.objects(move |objects| {
            let mut left = contents(objects, &owner)?;
            if has_docker && !left.contains(&"containers") {
                left.push("containers");
            }
            if !left.is_empty() {
                let why = format!("it must be empty, but it still has {}", left.join(", "));
                let name = owner.to_string();
                return Err(ObjectError::Precondition { kind: "namespace", name, why });
            }
            objects.delete::<Namespace>(&owner, owner.as_str()).map(drop)
        })
        .await?;
        let event = wire_events::NamespaceDelete { name: tenant.to_string() };
        self.publish(&tenant, "/namespaces/delete", &event, None);
        Ok(Response::new(()))
    }
}

fn update(objects: &Objects, tenant: &Tenant, new: &Wire, paths: &[String]) -> Result<Namespace, ObjectError> {
    let exists = objects.find::<Namespace>(tenant, tenant.as_str())?.is_some();
    if !exists {
        // Only its objects told of it until now.
        let implied =
            find(objects, tenant)?.ok_or_else(|| ObjectError::not_found::<Namespace>(tenant.as_str()))?;
        objects.create(tenant, &implied)?;
    }
    objects.update::<Namespace>(tenant, tenant.as_str(), |namespace| {
        let all = ["labels".to_owned()];
        for path in if paths.is_empty() { &all } else { paths } {
            match path.strip_prefix("labels.") {
                Some(key) => match new.labels.get(key).filter(|value| !value.is_empty()) {
                    Some(value) => drop(namespace.labels.insert(key.to_owned(), value.clone())),
                    None => drop(namespace.labels.remove(key)),
                },
                None if path == "labels" => namespace.labels.clone_from(&new.labels),
                None => return Err(ObjectError::invalid("field", path, "it cannot be changed in a namespace")),
            }
        }
        Ok(())
    })
}
