//! `Namespaces`: tenants. One exists when it was made, or when something was made in it; `default` always, since Docker's face lives there.

use std::sync::Arc;

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::namespaces::v1::namespaces_server::Namespaces;
use berth_containerd_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest, GetNamespaceResponse,
    ListNamespacesRequest, ListNamespacesResponse, Namespace as Wire, UpdateNamespaceRequest, UpdateNamespaceResponse,
};
use berth_core::Tenant;
use berth_core::filter::{Fields, map_field, text_field};
use berth_image::tenant::Namespace;
use berth_image::{ImageError, ImageStore};
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

fn tenant(name: &str) -> Result<Tenant, Status> {
    name.parse::<Tenant>().map_err(|error| error.into_status())
}

impl Face {
    async fn tenants<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ImageStore) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = Arc::clone(self.engine.image_store());
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done.map_err(|error| error.into_status()),
            Err(_) => Err(Status::internal("a worker thread ended early")),
        }
    }
}

#[tonic::async_trait]
impl Namespaces for Face {
    async fn get(&self, request: Request<GetNamespaceRequest>) -> Answer<GetNamespaceResponse> {
        let name = request.into_inner().name;
        let found = self.engine.image_store().namespace(&name).map_err(|error| error.into_status())?;
        Ok(Response::new(GetNamespaceResponse { namespace: Some(wire(found)) }))
    }

    async fn list(&self, request: Request<ListNamespacesRequest>) -> Answer<ListNamespacesResponse> {
        let filters = filters(&[request.into_inner().filter])?;
        let namespaces = self.tenants(ImageStore::namespaces).await?;
        let namespaces = namespaces.into_iter().filter(|n| filters.matches(&NamespaceFields(n))).map(wire).collect();
        Ok(Response::new(ListNamespacesResponse { namespaces }))
    }

    async fn create(&self, request: Request<CreateNamespaceRequest>) -> Answer<CreateNamespaceResponse> {
        let new = request.into_inner().namespace.unwrap_or_default();
        let tenant = tenant(&new.name)?;
        let made = self.tenants(move |store| store.create_namespace(&new.name, &new.labels)).await?;
        let event = wire_events::NamespaceCreate { name: made.name.clone(), labels: made.labels.clone() };
        self.publish(&tenant, "/namespaces/create", &event, None);
        Ok(Response::new(CreateNamespaceResponse { namespace: Some(wire(made)) }))
    }

    async fn update(&self, request: Request<UpdateNamespaceRequest>) -> Answer<UpdateNamespaceResponse> {
        let request = request.into_inner();
        let new = request.namespace.unwrap_or_default();
        let tenant = tenant(&new.name)?;
        let paths = paths(request.update_mask);
        let changed = self.tenants(move |store| store.update_namespace(&new.name, &new.labels, &paths)).await?;
        let event = wire_events::NamespaceUpdate { name: changed.name.clone(), labels: changed.labels.clone() };
        self.publish(&tenant, "/namespaces/update", &event, None);
        Ok(Response::new(UpdateNamespaceResponse { namespace: Some(wire(changed)) }))
    }

    async fn delete(&self, request: Request<DeleteNamespaceRequest>) -> Answer<()> {
        let tenant = tenant(&request.into_inner().name)?;
        if tenant.is_docker() && !self.engine.container_objects().is_empty() {
            let what = "namespace \"default\" is not empty: it has containers";
            return Err(Status::failed_precondition(what));
        }
        let name = tenant.to_string();
        self.tenants(move |store| store.delete_namespace(&name)).await?;
        let event = wire_events::NamespaceDelete { name: tenant.to_string() };
        self.publish(&tenant, "/namespaces/delete", &event, None);
        Ok(Response::new(()))
    }
}
