//! `Images`: names for descriptors. In `default`, the images of Docker's face are among them.

use berth_containerd_api::containerd::services::images::v1::images_server::Images;
use berth_containerd_api::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse, ImageCreate,
    ImageDelete, ImageUpdate, ListImagesRequest, ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
};
use berth_core::Tenant;
use berth_core::objects::{ImageName, ObjectError};
use berth_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{Answer, filters, paths};
use crate::Face;
use crate::convert::{image, image_from_wire, instant_from_wire};
use crate::event::Docker;
use crate::status::{IntoStatus as _, engine_status};
use crate::tenant;

impl Face {
    /// Records of this face, then what only Docker's face knows by that name.
    pub(crate) async fn image_names(&self, tenant: &Tenant) -> Result<Vec<ImageName>, Status> {
        let owner = tenant.clone();
        let mut names = self.objects(move |objects| objects.list::<ImageName>(&owner)).await?;
        if tenant.is_docker() {
            let dockers = self.engine.image_names().await.map_err(engine_status)?;
            let known: std::collections::BTreeSet<String> = names.iter().map(|image| image.name.clone()).collect();
            names.extend(dockers.into_iter().filter(|image| !known.contains(&image.name)));
            names.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(names)
    }

    pub(crate) async fn image_name(&self, tenant: &Tenant, name: &str) -> Result<ImageName, Status> {
        let (owner, wanted) = (tenant.clone(), name.to_owned());
        if let Some(found) = self.objects(move |objects| objects.find::<ImageName>(&owner, &wanted)).await? {
            return Ok(found);
        }
        let all = if tenant.is_docker() { self.engine.image_names().await.map_err(engine_status)? } else { Vec::new() };
        let found = all.into_iter().find(|image| image.name == name);
        found.ok_or_else(|| ObjectError::not_found::<ImageName>(name).into_status())
    }
}

/// Reproducible exports name the instant themselves.
fn instant_of(epoch: Option<prost_types::Timestamp>) -> Timestamp {
    epoch.as_ref().map_or_else(Timestamp::now, instant_from_wire)
}

#[tonic::async_trait]
impl Images for Face {
    async fn get(&self, request: Request<GetImageRequest>) -> Answer<GetImageResponse> {
        let tenant = tenant::of(&request)?;
        let found = self.image_name(&tenant, &request.into_inner().name).await?;
        Ok(Response::new(GetImageResponse { image: Some(image(found)) }))
    }

    async fn list(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = self.image_names(&tenant).await?;
        let images = found.into_iter().filter(|found| filters.matches(found)).map(image).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(&self, request: Request<CreateImageRequest>) -> Answer<CreateImageResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let mut new = image_from_wire(request.image.unwrap_or_default());
        new.created_at = instant_of(request.source_date_epoch);
        new.updated_at = new.created_at;
        if tenant.is_docker() && self.image_name(&tenant, &new.name).await.is_ok() {
            return Err(ObjectError::exists::<ImageName>(&new.name).into_status());
        }
        let (owner, record) = (tenant.clone(), new.clone());
        self.objects(move |objects| objects.create(&owner, &record)).await?;
        let event = ImageCreate { name: new.name.clone(), labels: new.labels.clone() };
        let docker = Docker::image("tag", &new.target.digest, &new.name);
        self.publish(&tenant, "/images/create", &event, Some(docker));
        Ok(Response::new(CreateImageResponse { image: Some(image(new)) }))
    }

    async fn update(&self, request: Request<UpdateImageRequest>) -> Answer<UpdateImageResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = image_from_wire(request.image.unwrap_or_default());
        let paths = paths(request.update_mask);
        let at = instant_of(request.source_date_epoch);
        let known = self.image_name(&tenant, &new.name).await?;
        let owner = tenant.clone();
        let changed = self
            .objects(move |objects| {
                if objects.find::<ImageName>(&owner, &known.name)?.is_none() {
                    // Docker's face knew it until now; from here on it has a record with labels.
                    objects.create(&owner, &known)?;
                }
                objects.update::<ImageName>(&owner, &known.name, |found| {
                    found.change(&new, &paths)?;
                    found.updated_at = at;
                    Ok(())
                })
            })
            .await?;
        let event = ImageUpdate { name: changed.name.clone(), labels: changed.labels.clone() };
        self.publish(&tenant, "/images/update", &event, None);
        Ok(Response::new(UpdateImageResponse { image: Some(image(changed)) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let found = self.image_name(&tenant, &request.name).await?;
        if let Some(target) = request.target
            && target.digest != found.target.digest
        {
            let error = ObjectError::Precondition {
                kind: "image",
                name: request.name,
                why: format!("it points at {} now", found.target.digest),
            };
            return Err(error.into_status());
        }
        let (owner, name) = (tenant.clone(), request.name.clone());
        let was_ours = self
            .objects(move |objects| match objects.delete::<ImageName>(&owner, &name) {
                Err(ObjectError::NotFound { .. }) => Ok(false),
                other => other.map(|_| true),
            })
            .await?;
        let dockers = if tenant.is_docker() { self.engine.has_image_name(&request.name).await } else { false };
        if dockers {
            self.engine.remove_image(&request.name, false, false).await.map_err(engine_status)?;
        }
        if was_ours {
            let docker = Docker::image("untag", &found.target.digest, &request.name);
            let docker = (!dockers).then_some(docker);
            self.publish(&tenant, "/images/delete", &ImageDelete { name: request.name }, docker);
        }
        Ok(Response::new(()))
    }
}
