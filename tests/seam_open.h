// Gives a test a hand in opening files: define HTTPSRV_SEAM as this file's name before httpsrv.h is included, and the
// function hooked_open_beneath behind that. `#undef hsrv_sys_open_beneath` in between, so that it can call the real one.

#ifndef SEAM_OPEN_H
#define SEAM_OPEN_H

static int hooked_open_beneath(int root, const char *path, bool links);
#define hsrv_sys_open_beneath hooked_open_beneath

#endif // SEAM_OPEN_H
