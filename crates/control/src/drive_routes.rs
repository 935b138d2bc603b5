//! Calls about the drives of a pool.

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};

use crate::codes;
use crate::extract::Sent;
use crate::guard::DryRun;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::route::Route;
use crate::server::{Reply, Shared, envelope, known_pool};
use crate::upkeep::{DriveOffer, DriveTaken};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post("/v1/drives", "Takes a blank drive as a spare.", add_spare)
            .takes::<DriveOffer>()
            .answers::<DriveTaken>()
            .plans(),
        Route::post(
            "/v1/drives/{pool}/{slot}/replace",
            "Fills a drive's place with another or a spare.",
            replace_drive,
        )
        .takes::<DriveOffer>()
        .answers::<DriveTaken>()
        .plans(),
        Route::post(
            "/v1/drives/{pool}/{slot}/retire",
            "Fills another drive or a spare from a good one, and lets it take the place then.",
            retire_drive,
        )
        .takes::<DriveOffer>()
        .answers::<DriveTaken>()
        .plans(),
    ]
}

type Place = Result<Path<(String, u32)>, PathRejection>;

fn drive_of(place: Place) -> Result<(String, u32), Problem> {
    let nonsense = |why: PathRejection| {
        Problem::new(&codes::BAD_INPUT, "the drive in the path makes no sense").why(why.body_text())
    };
    place.map(|Path(place)| place).map_err(nonsense)
}

async fn add_spare(
    State(api): Shared,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(offer): Sent<DriveOffer>,
) -> Reply {
    let path = offer.path.ok_or_else(|| Problem::new(&codes::BAD_INPUT, "a spare needs a path"))?;
    if dry_run {
        return Ok(envelope(None, Plan::would(format!("take {path} as a spare, if it is blank"))));
    }
    Ok(envelope(None, api.backend().add_spare(path).await?))
}

async fn replace_drive(
    State(api): Shared,
    place: Place,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(offer): Sent<DriveOffer>,
) -> Reply {
    let (pool, slot) = drive_of(place)?;
    known_pool(&api, &pool).await?;
    if dry_run {
        let with = offer.path.unwrap_or_else(|| "a spare".to_owned());
        return Ok(envelope(None, Plan::would(format!("fill the place of {pool}/{slot} with {with} and rebuild"))));
    }
    Ok(envelope(None, api.backend().replace_drive(slot, offer.path).await?))
}

async fn retire_drive(
    State(api): Shared,
    place: Place,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(offer): Sent<DriveOffer>,
) -> Reply {
    let (pool, slot) = drive_of(place)?;
    known_pool(&api, &pool).await?;
    if dry_run {
        let with = api.backend().could_retire(slot, offer.path).await?;
        let effect =
            format!("fill {with} from {pool}/{slot} and let it take the place; {pool}/{slot} serves until then");
        return Ok(envelope(None, Plan::would(effect)));
    }
    Ok(envelope(None, api.backend().retire_drive(slot, offer.path).await?))
}
