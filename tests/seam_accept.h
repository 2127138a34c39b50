// Gives a test a hand in accepting: define HTTPSRV_SEAM as this file's name before httpsrv.h is included, and the function
// hooked_accept behind that. `#undef hsrv_sys_accept` in between, so that it can call the real one.

#ifndef SEAM_ACCEPT_H
#define SEAM_ACCEPT_H

static int hooked_accept(int fd, struct sockaddr *address, socklen_t *len);
#define hsrv_sys_accept hooked_accept

#endif // SEAM_ACCEPT_H
