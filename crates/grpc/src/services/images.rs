//! `Images`: names for descriptors. In `default`, the images of Docker's face are among them, and what is named here is one of Docker's.

use berth_containerd_api::containerd::services::images::v1::images_server::Images;
use berth_containerd_api::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse, ImageCreate,
    ImageDelete, ImageUpdate, ListImagesRequest, ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
};
use berth_core::filter::{Fields, map_field, text_field};
use berth_image::tenant::NamedImage;
use tonic::{Request, Response, Status};

use super::{Answer, filters, paths};
use crate::Face;
use crate::convert::{image, target};
use crate::event::Docker;
use crate::status::engine_status;
use crate::tenant;

struct ImageFields<'a>(&'a NamedImage);

impl Fields for ImageFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        let image = self.0;
        match path {
            ["name"] => text_field(&image.name),
            ["target", "digest"] => Some(image.target.digest.to_string()),
            ["target", "mediatype"] => text_field(&image.target.media_type),
            ["labels", key @ ..] => map_field(key, &image.labels),
            ["annotations", key @ ..] => map_field(key, &image.target.annotations),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl Images for Face {
    async fn get(&self, request: Request<GetImageRequest>) -> Answer<GetImageResponse> {
        let tenant = tenant::of(&request)?;
        let name = request.into_inner().name;
        let found = self.look(&tenant, |store| store.image(&name))?;
        Ok(Response::new(GetImageResponse { image: Some(image(found)) }))
    }

    async fn list(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = self.store(&tenant, |store| store.images()).await?;
        let images = found.into_iter().filter(|found| filters.matches(&ImageFields(found))).map(image).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(&self, request: Request<CreateImageRequest>) -> Answer<CreateImageResponse> {
        let tenant = tenant::of(&request)?;
        let new = request.into_inner().image.unwrap_or_default();
        let goal = target(new.target.unwrap_or_default())?;
        let made = self.store(&tenant, move |store| store.create_image(&new.name, goal, &new.labels)).await?;
        let event = ImageCreate { name: made.name.clone(), labels: made.labels.clone() };
        let docker = Docker::image("tag", &made.target.digest.to_string(), &made.name);
        self.publish(&tenant, "/images/create", &event, Some(docker));
        Ok(Response::new(CreateImageResponse { image: Some(image(made)) }))
    }

    async fn update(&self, request: Request<UpdateImageRequest>) -> Answer<UpdateImageResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = request.image.unwrap_or_default();
        let paths = paths(request.update_mask);
        let changed = self.update_image_name(&tenant, new, paths).await?;
        let event = ImageUpdate { name: changed.name.clone(), labels: changed.labels.clone() };
        self.publish(&tenant, "/images/update", &event, None);
        Ok(Response::new(UpdateImageResponse { image: Some(image(changed)) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let name = request.name.clone();
        let found = self.store(&tenant, move |store| store.image(&name)).await?;
        if request.target.is_some_and(|wanted| wanted.digest != found.target.digest.to_string()) {
            let now = found.target.digest;
            return Err(Status::failed_precondition(format!("image {:?} points at {now} now", request.name)));
        }
        self.engine.delete_image_name(tenant.as_str(), &request.name, request.sync).await.map_err(engine_status)?;
        let docker = Docker::image("untag", &found.target.digest.to_string(), &request.name);
        self.publish(&tenant, "/images/delete", &ImageDelete { name: request.name }, Some(docker));
        Ok(Response::new(()))
    }
}

impl Face {
    /// A change of labels alone may come without a target.
    async fn update_image_name(
        &self,
        tenant: &berth_core::Tenant,
        new: berth_containerd_api::containerd::services::images::v1::Image,
        paths: Vec<String>,
    ) -> Result<NamedImage, Status> {
        let changes_target = paths.is_empty() || paths.iter().any(|path| path == "target");
        let goal = match changes_target {
            true => Some(target(new.target.unwrap_or_default())?),
            false => None,
        };
        self.store(tenant, move |store| {
            let goal = match goal {
                Some(goal) => goal,
                None => store.image(&new.name)?.target,
            };
            store.update_image(&new.name, goal, &new.labels, &paths)
        })
        .await
    }
}
