//! `Leases`: what a client holds while it works; nothing it holds is collected.

use berth_containerd_api::containerd::services::leases::v1::leases_server::Leases;
use berth_containerd_api::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, Lease as Wire,
    ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse, Resource as WireResource,
};
use berth_core::filter::{Fields, map_field, text_field};
use berth_image::tenant::{Lease, Resource};
use tonic::{Request, Response, Status};

use super::{Answer, filters};
use crate::Face;
use crate::convert::instant;
use crate::tenant;

struct LeaseFields<'a>(&'a Lease);

impl Fields for LeaseFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => text_field(&self.0.id),
            ["labels", key @ ..] => map_field(key, &self.0.labels),
            _ => None,
        }
    }
}

fn wire(lease: Lease) -> Wire {
    Wire { id: lease.id, created_at: Some(instant(lease.created)), labels: lease.labels }
}

fn resource(message: Option<WireResource>) -> Result<Resource, Status> {
    let message = message.ok_or_else(|| Status::invalid_argument("a resource must be given"))?;
    Ok(Resource { id: message.id, kind: message.r#type })
}

#[tonic::async_trait]
impl Leases for Face {
    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let made = self.store(&tenant, move |store| store.create_lease(&request.id, &request.labels)).await?;
        Ok(Response::new(CreateResponse { lease: Some(wire(made)) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        self.store(&tenant, move |store| store.delete_lease(&request.id, request.sync)).await?;
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let leases = self.store(&tenant, |store| store.leases()).await?;
        let leases = leases.into_iter().filter(|lease| filters.matches(&LeaseFields(lease))).map(wire).collect();
        Ok(Response::new(ListResponse { leases }))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = resource(request.resource)?;
        self.store(&tenant, move |store| store.add_resource(&request.id, new)).await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(&self, request: Request<DeleteResourceRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let gone = resource(request.resource)?;
        self.store(&tenant, move |store| store.delete_resource(&request.id, &gone)).await?;
        Ok(Response::new(()))
    }

    async fn list_resources(&self, request: Request<ListResourcesRequest>) -> Answer<ListResourcesResponse> {
        let tenant = tenant::of(&request)?;
        let id = request.into_inner().id;
        let held = self.store(&tenant, move |store| store.resources(&id)).await?;
        let resources = held.into_iter().map(|held| WireResource { id: held.id, r#type: held.kind }).collect();
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}
