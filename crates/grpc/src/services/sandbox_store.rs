//! Sandbox `Store`: the records of pods.

use berth_containerd_api::containerd::services::sandbox::v1::store_server::Store;
use berth_containerd_api::containerd::services::sandbox::v1::{
    StoreCreateRequest, StoreCreateResponse, StoreDeleteRequest, StoreDeleteResponse, StoreGetRequest,
    StoreGetResponse, StoreListRequest, StoreListResponse, StoreUpdateRequest, StoreUpdateResponse,
};
use berth_core::objects::Sandbox;
use berth_types::Timestamp;
use tonic::{Request, Response};

use super::{Answer, filters};
use crate::Face;
use crate::convert::{sandbox, sandbox_from_wire};
use crate::tenant;

#[tonic::async_trait]
impl Store for Face {
    async fn create(&self, request: Request<StoreCreateRequest>) -> Answer<StoreCreateResponse> {
        let tenant = tenant::of(&request)?;
        let mut new = sandbox_from_wire(request.into_inner().sandbox.unwrap_or_default());
        new.created_at = Timestamp::now();
        new.updated_at = new.created_at;
        let record = new.clone();
        self.objects(move |objects| objects.create(&tenant, &record)).await?;
        Ok(Response::new(StoreCreateResponse { sandbox: Some(sandbox(new)) }))
    }

    async fn update(&self, request: Request<StoreUpdateRequest>) -> Answer<StoreUpdateResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = sandbox_from_wire(request.sandbox.unwrap_or_default());
        let changed = self
            .objects(move |objects| {
                objects.update::<Sandbox>(&tenant, &new.id, |found| found.change(&new, &request.fields))
            })
            .await?;
        Ok(Response::new(StoreUpdateResponse { sandbox: Some(sandbox(changed)) }))
    }

    async fn delete(&self, request: Request<StoreDeleteRequest>) -> Answer<StoreDeleteResponse> {
        let tenant = tenant::of(&request)?;
        let id = request.into_inner().sandbox_id;
        self.objects(move |objects| objects.delete::<Sandbox>(&tenant, &id).map(drop)).await?;
        Ok(Response::new(StoreDeleteResponse {}))
    }

    async fn list(&self, request: Request<StoreListRequest>) -> Answer<StoreListResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = self.objects(move |objects| objects.list::<Sandbox>(&tenant)).await?;
        let list = found.into_iter().filter(|found| filters.matches(found)).map(sandbox).collect();
        Ok(Response::new(StoreListResponse { list }))
    }

    async fn get(&self, request: Request<StoreGetRequest>) -> Answer<StoreGetResponse> {
        let tenant = tenant::of(&request)?;
        let id = request.into_inner().sandbox_id;
        let found = self.objects(move |objects| objects.get::<Sandbox>(&tenant, &id)).await?;
        Ok(Response::new(StoreGetResponse { sandbox: Some(sandbox(found)) }))
    }
}
