//! `Containers`: the records of a tenant; in `default`, Docker's containers among them.

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::containers::v1::containers_server::Containers;
use berth_containerd_api::containerd::services::containers::v1::{
    Container as Wire, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, GetContainerRequest,
    GetContainerResponse, ListContainerMessage, ListContainersRequest, ListContainersResponse, UpdateContainerRequest,
    UpdateContainerResponse,
};
use berth_core::Tenant;
use berth_core::objects::{ContainerObject, ObjectError};
use berth_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{Answer, Answers, filters, paths};
use crate::Face;
use crate::convert::{any, container, container_from_wire};
use crate::event::Docker;
use crate::status::{IntoStatus as _, engine_status};
use crate::tenant;

impl Face {
    /// One of this face's own, or one of the engine's.
    pub(crate) fn container(&self, tenant: &Tenant, id: &str) -> Result<ContainerObject, Status> {
        if let Some(found) = self.docker_container(tenant, id) {
            return Ok(found);
        }
        // One record, read without waiting for a writer.
        self.engine.objects().get::<ContainerObject>(tenant, id).map_err(|error| error.into_status())
    }

    pub(crate) fn docker_container(&self, tenant: &Tenant, id: &str) -> Option<ContainerObject> {
        tenant.is_docker().then(|| self.engine.container_object(id)).flatten()
    }

    async fn containers(&self, request: Request<ListContainersRequest>) -> Result<Vec<Wire>, Status> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let mut found = if tenant.is_docker() { self.engine.container_objects() } else { Vec::new() };
        found.extend(self.objects(move |objects| objects.list::<ContainerObject>(&tenant)).await?);
        found.retain(|object| filters.matches(object));
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found.into_iter().map(container).collect())
    }
}

#[tonic::async_trait]
impl Containers for Face {
    async fn get(&self, request: Request<GetContainerRequest>) -> Answer<GetContainerResponse> {
        let tenant = tenant::of(&request)?;
        let found = self.container(&tenant, &request.into_inner().id)?;
        Ok(Response::new(GetContainerResponse { container: Some(container(found)) }))
    }

    async fn list(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let containers = self.containers(request).await?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    type ListStreamStream = Answers<ListContainerMessage>;

    async fn list_stream(&self, request: Request<ListContainersRequest>) -> Answer<Self::ListStreamStream> {
        let containers = self.containers(request).await?;
        let messages = containers.into_iter().map(|found| Ok(ListContainerMessage { container: Some(found) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn create(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let tenant = tenant::of(&request)?;
        let mut new = container_from_wire(request.into_inner().container.unwrap_or_default());
        if self.docker_container(&tenant, &new.id).is_some() {
            return Err(ObjectError::exists::<ContainerObject>(&new.id).into_status());
        }
        new.created_at = Timestamp::now();
        new.updated_at = new.created_at;
        let (owner, record) = (tenant.clone(), new.clone());
        self.objects(move |objects| objects.create(&owner, &record)).await?;
        let runtime = wire_events::container_create::Runtime {
            name: new.runtime.name.clone(),
            options: new.runtime.options.clone().map(any),
        };
        let event =
            wire_events::ContainerCreate { id: new.id.clone(), image: new.image.clone(), runtime: Some(runtime) };
        let docker = Docker::container("create", &new.id, &new.image);
        self.publish(&tenant, "/containers/create", &event, Some(docker));
        Ok(Response::new(CreateContainerResponse { container: Some(container(new)) }))
    }

    async fn update(&self, request: Request<UpdateContainerRequest>) -> Answer<UpdateContainerResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = container_from_wire(request.container.unwrap_or_default());
        if self.docker_container(&tenant, &new.id).is_some() {
            let why = "it was made through Docker's API: change it there (berth update, berth rename)".to_owned();
            return Err(ObjectError::Precondition { kind: "container", name: new.id, why }.into_status());
        }
        let paths = paths(request.update_mask);
        let owner = tenant.clone();
        let changed = self
            .objects(move |objects| {
                objects.update::<ContainerObject>(&owner, &new.id, |found| found.change(&new, &paths))
            })
            .await?;
        let event = wire_events::ContainerUpdate {
            id: changed.id.clone(),
            image: changed.image.clone(),
            labels: changed.labels.clone(),
            snapshot_key: changed.snapshot_key.clone(),
        };
        self.publish(&tenant, "/containers/update", &event, None);
        Ok(Response::new(UpdateContainerResponse { container: Some(container(changed)) }))
    }

    async fn delete(&self, request: Request<DeleteContainerRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let id = request.into_inner().id;
        if self.docker_container(&tenant, &id).is_some() {
            // The engine tells of it: container destroy is /containers/delete.
            self.engine.remove_by_full_id(&id).await.map_err(engine_status)?;
            return Ok(Response::new(()));
        }
        let (owner, name) = (tenant.clone(), id.clone());
        let gone = self.objects(move |objects| objects.delete::<ContainerObject>(&owner, &name)).await?;
        let docker = Docker::container("destroy", &id, &gone.image);
        self.publish(&tenant, "/containers/delete", &wire_events::ContainerDelete { id }, Some(docker));
        Ok(Response::new(()))
    }
}
