#!/bin/bash
# What clusters/gcp.yaml expects of a Google Cloud project: gcp-project.sh create PROJECT BUCKET FROM, or delete PROJECT
# BUCKET. FROM is the addresses that may come in through SSH, such as 203.0.113.7/32. It costs nothing but the storage
# of images and results. `create` can be repeated; `delete` leaves the bucket, so that results outlive all else.
set -euo pipefail

what=$1 project=$2 bucket=$3
region=us-central1
export CLOUDSDK_CORE_PROJECT=$project CLOUDSDK_CORE_DISABLE_PROMPTS=1
head=serviceAccount:sgbench-head@$project.iam.gserviceaccount.com
worker=serviceAccount:sgbench-worker@$project.iam.gserviceaccount.com
rays=serviceAccount:ray-autoscaler-sa-v1@$project.iam.gserviceaccount.com # made by `ray up`; no machine has it here

create() { # unless it exists
  local said
  said=$(gcloud "$@" 2>&1) || [[ $said == *already* ]] || { echo "$said" >&2; exit 1; }
}

case $what in
create)
  from=$4
  gcloud services enable artifactregistry.googleapis.com cloudresourcemanager.googleapis.com compute.googleapis.com \
    iam.googleapis.com
  create storage buckets create "gs://$bucket" --location "$region" --uniform-bucket-level-access \
    --public-access-prevention
  create artifacts repositories create sgbench --repository-format docker --location "$region"

  create compute networks create sgbench --subnet-mode custom
  create compute networks subnets create sgbench --network sgbench --region "$region" --range 10.0.0.0/20 \
    --enable-private-ip-google-access
  create compute firewall-rules create sgbench-ssh --network sgbench --source-ranges "$from" --allow tcp:22
  create compute firewall-rules create sgbench-among --network sgbench --source-ranges 10.0.0.0/20 --allow all

  create iam service-accounts create sgbench-head
  create iam service-accounts create sgbench-worker
  for member in "$head" "$worker"; do
    gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member "$member" --role roles/storage.objectUser
    gcloud artifacts repositories add-iam-policy-binding sgbench --location "$region" --member "$member" \
      --role roles/artifactregistry.reader
  done
  # What Ray's launcher calls on a head: machines, and workers' account for them, but neither networks nor roles.
  gcloud projects add-iam-policy-binding "$project" --member "$head" --role roles/compute.instanceAdmin.v1 \
    --condition None
  gcloud iam service-accounts add-iam-policy-binding "${worker#*:}" --member "$head" \
    --role roles/iam.serviceAccountUser
  ;;
delete)
  set +e # whatever does not exist need not be deleted
  gcloud artifacts repositories delete sgbench --location "$region"
  gcloud compute firewall-rules delete sgbench-ssh sgbench-among
  gcloud compute networks subnets delete sgbench --region "$region"
  gcloud compute networks delete sgbench
  for member in "$head" "$worker"; do
    gcloud storage buckets remove-iam-policy-binding "gs://$bucket" --member "$member" --role roles/storage.objectUser
  done
  gcloud projects remove-iam-policy-binding "$project" --member "$head" --role roles/compute.instanceAdmin.v1 \
    --condition None
  for role in compute.admin iam.roleViewer iam.serviceAccountUser storage.objectAdmin; do
    gcloud projects remove-iam-policy-binding "$project" --member "$rays" --role "roles/$role" --condition None
  done
  for member in "$head" "$worker" "$rays"; do
    gcloud iam service-accounts delete "${member#*:}"
  done
  ;;
*)
  echo "create or delete, not '$what'" >&2
  exit 2
  ;;
esac
