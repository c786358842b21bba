"""What `streampose prior` is made of: readers of pose files, joints by name, bones of one length, pages."""
