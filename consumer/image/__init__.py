"""One image from source to destination: survey, select, plan, copy the manifests, bring the referrers."""
