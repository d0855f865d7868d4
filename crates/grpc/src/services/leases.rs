//! `Leases`: what a client holds while it works.

use berth_containerd_api::containerd::services::leases::v1::leases_server::Leases;
use berth_containerd_api::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, Lease as Wire,
    ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse, Resource,
};
use berth_core::objects::{Lease, LeaseResource};
use berth_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{Answer, filters};
use crate::Face;
use crate::convert::instant;
use crate::tenant;

fn wire(lease: Lease) -> Wire {
    Wire { id: lease.id, created_at: Some(instant(lease.created_at)), labels: lease.labels }
}

fn resource(message: Option<Resource>) -> Result<LeaseResource, Status> {
    let message = message.ok_or_else(|| Status::invalid_argument("a resource must be given"))?;
    Ok(LeaseResource { id: message.id, kind: message.r#type })
}

#[tonic::async_trait]
impl Leases for Face {
    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(Status::invalid_argument("a lease needs an id"));
        }
        let lease =
            Lease { id: request.id, labels: request.labels, created_at: Timestamp::now(), resources: Vec::new() };
        let record = lease.clone();
        self.objects(move |objects| objects.create(&tenant, &record)).await?;
        Ok(Response::new(CreateResponse { lease: Some(wire(lease)) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        self.objects(move |objects| objects.delete::<Lease>(&tenant, &request.id).map(drop)).await?;
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let leases = self.objects(move |objects| objects.list::<Lease>(&tenant)).await?;
        let leases = leases.into_iter().filter(|lease| filters.matches(lease)).map(wire).collect();
        Ok(Response::new(ListResponse { leases }))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = resource(request.resource)?;
        self.objects(move |objects| {
            objects.update::<Lease>(&tenant, &request.id, |lease| {
                new.check()?;
                lease.resources.push(new);
                lease.resources.sort();
                lease.resources.dedup();
                Ok(())
            })
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(&self, request: Request<DeleteResourceRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let gone = resource(request.resource)?;
        self.objects(move |objects| {
            objects.update::<Lease>(&tenant, &request.id, |lease| {
                gone.check()?;
                lease.resources.retain(|held| *held != gone);
                Ok(())
            })
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn list_resources(&self, request: Request<ListResourcesRequest>) -> Answer<ListResourcesResponse> {
        let tenant = tenant::of(&request)?;
        let id = request.into_inner().id;
        let lease = self.objects(move |objects| objects.get::<Lease>(&tenant, &id)).await?;
        let resources = lease.resources.into_iter().map(|held| Resource { id: held.id, r#type: held.kind }).collect();
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}
