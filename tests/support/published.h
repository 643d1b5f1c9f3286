/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_PUBLISHED_H
#define RS_TESTS_PUBLISHED_H

/* The sample of the README of pyvmx-cracker (MIT licence), line breaks taken out; its pass phrase is there
 * too. */
#define PUBLISHED_SAFE                                                                                       \
    "vmware:key/list/(pair/(phrase/MA3fCocdhNc%3d/"                                                          \
    "pass2key%3dPBKDF2%2dHMAC%2dSHA%2d1%3acipher%3dAES%2d256%3a"                                             \
    "rounds%3d1000%3asalt%3d9kxr%2bxeqo4xPz9ttPZUVFA%253d%253d,HMAC%2dSHA%2d1,"                              \
    "X4sG4nJc0yeWAaSkBllAPI4nCrbO2RUE8dXHa82I4KmfNO7JjruuCrWgRRT6EUQHGQP%2bTDjPFSLHZs%"                      \
    "2bwRpFZXpjyWvJkzwFhx7UJGQ"                                                                              \
    "riz3SCXWlwrz1zNPYAmqSXiusyFiY4js0CdabNfdFQKtLy79jDuP0%3d))"
#define PUBLISHED_PHRASE "Password123"

#endif
